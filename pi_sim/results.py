"""Results in Python: a data frame, one line as their repr, and a table in a notebook."""

from abc import ABC, abstractmethod
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


DETAILS = ("server", "client", "ahead", "session", "first_query")
"""Beginnings of the columns that tables for people leave out."""


class Result(ABC):
    """A result with a title and a data frame."""

    @property
    @abstractmethod
    def title(self) -> str:
        """One line that says what it is, with its main numbers."""

    @abstractmethod
    def frame(self) -> "pd.DataFrame":
        """Return the rows as a data frame."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.title}>"

    def _repr_html_(self) -> str:
        return html_table(self.title, self.frame())


def html_table(title: str, frame: "pd.DataFrame") -> str:
    """Return a data frame as HTML under its title, without details and empty columns."""
    shown = [name for name in frame if not str(name).startswith(DETAILS) and not frame[name].isna().all()]
    style = frame[shown].style.format(precision=3, thousands=",", na_rep="", escape="html").hide(axis="index")
    return style.set_caption(escape(title)).to_html()
