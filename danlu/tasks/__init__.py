"""SHELF: what is asked. One line a member: kind -> its settings class (torch-free), which scores outputs."""

from danlu.base.settings import Settings
from danlu.tasks.chat import ChatTask
from danlu.tasks.classify import Classify
from danlu.tasks.forecast import Forecast
from danlu.tasks.language import Language
from danlu.tasks.regress import Regress
from danlu.tasks.tag import Tag

TASKS: dict[str, type[Settings]] = {
    "language": Language,
    "chat": ChatTask,
    "classify": Classify,
    "regress": Regress,
    "forecast": Forecast,
    "tag": Tag,
}
