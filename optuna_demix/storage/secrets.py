"""Passwords of storages: how not to print or store them."""

from __future__ import annotations

import logging
import re


def mask_url(text: str) -> str:
    """A storage URL, or a text with one in it, with the password replaced by ``***``."""
    masked = re.sub(r"(://[^:/@\s]*:)\S*(@)", r"\1***\2", text)
    return re.sub(r"(?i)\b((?:password|passwd|pwd)=)[^&\s]*", r"\1***", masked)


class Secrets:
    """The password of a storage, and how to keep it out of what is printed and stored.

    Args:
        url: The storage URL.
    """

    def __init__(self, url: str) -> None:
        from urllib.parse import unquote

        found = re.search(r"://[^:/@\s]*:(\S*)@", url)
        words = {found.group(1)} if found else set()
        words |= set(re.findall(r"(?i)[?&](?:password|passwd|pwd)=([^&\s]*)", url))
        words |= {unquote(word) for word in words}
        self._words = sorted((word for word in words if word), key=len, reverse=True)

    def mask(self, text: str) -> str:
        """A text without the password, whether it stands in a URL or alone."""
        for word in self._words:
            # A short one is masked where it stands by itself, not within other words.
            pattern = re.escape(word) if len(word) > 3 else rf"(?<!\w){re.escape(word)}(?!\w)"
            text = re.sub(pattern, "***", text)
        return mask_url(text)

    def line(self, error: BaseException) -> str:
        """The first line of an error, or of what caused it, without the password."""
        text = str(error.__cause__ or error).strip().split("\n")[0]
        return self.mask(text or type(error).__name__).rstrip(". ")

    def guard_logs(self) -> None:
        """Mask the password in all that Optuna logs from now on."""
        import optuna

        optuna.logging.get_logger("optuna")  # makes its handler
        for handler in logging.getLogger("optuna").handlers:
            handler.addFilter(_Masking(self))


class _Masking(logging.Filter):
    """Rewrites what is logged; it never drops a line."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._secrets.mask(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self._secrets.mask(record.exc_text)
        return True
