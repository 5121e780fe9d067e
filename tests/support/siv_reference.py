"""A second AES-SIV, written from RFC 5297 on CMAC and CTR alone, to check the one we use."""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC


def encrypt(key: bytes, associated_data: list[bytes], plaintext: bytes) -> bytes:
    """Return V || C (section 2.6)."""
    half = len(key) // 2
    iv = _s2v(key[:half], [*associated_data, plaintext])
    counter = bytearray(iv)
    counter[8] &= 0x7F
    counter[12] &= 0x7F
    stream = Cipher(algorithms.AES(key[half:]), modes.CTR(bytes(counter))).encryptor()
    return iv + stream.update(plaintext) + stream.finalize()


def _s2v(key: bytes, strings: list[bytes]) -> bytes:
    """Section 2.4."""
    state = _cmac(key, bytes(16))
    for text in strings[:-1]:
        state = _xor(_double(state), _cmac(key, text))
    last = strings[-1]
    if len(last) >= 16:
        mixed = last[:-16] + _xor(last[-16:], state)
    else:
        mixed = _xor(_double(state), (last + b"\x80").ljust(16, b"\0"))
    return _cmac(key, mixed)


def _cmac(key: bytes, text: bytes) -> bytes:
    mac = CMAC(algorithms.AES(key))
    mac.update(text)
    return mac.finalize()


def _double(block: bytes) -> bytes:
    """Multiply by x in GF(2^128), section 2.3."""
    number = int.from_bytes(block, "big") << 1
    if number >> 128:
        number = (number & ((1 << 128) - 1)) ^ 0x87
    return number.to_bytes(16, "big")


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
