"""Attacks on encrypted tables: which token stands for which level?"""
