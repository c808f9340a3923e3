"""The exception for mistakes of the user, apart from the modules that raise it."""


class InputError(Exception):
    """The user gave bad input. Commands show the message without a traceback and end with exit code 2.

    The message names the file or option, the key, the value, and what is allowed.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """`text` with backslash escapes for what cannot be printed.

    Python keeps the bytes of a file name that are no UTF-8 as lone surrogates, which no stream takes.
    """
    return text.encode("utf-8", "backslashreplace").decode()
