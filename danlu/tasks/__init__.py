"""SHELF: what is asked. One line a member: kind -> its settings class (torch-free), which scores outputs."""

from danlu.base.settings import Settings
from danlu.tasks.chat import ChatTask
from danlu.tasks.classify import Classify
from danlu.tasks.detect import Detect
from danlu.tasks.fold import FoldTask
from danlu.tasks.forecast import Forecast
from danlu.tasks.language import Language
from danlu.tasks.masked import Masked
from danlu.tasks.regress import Regress
from danlu.tasks.synthesize import Synthesize
from danlu.tasks.tag import Tag
from danlu.tasks.transcribe import Transcribe
from danlu.tasks.translate import Translate

TASKS: dict[str, type[Settings]] = {
    "language": Language,
    "chat": ChatTask,
    "classify": Classify,
    "regress": Regress,
    "detect": Detect,
    "masked": Masked,
    "forecast": Forecast,
    "tag": Tag,
    "synthesize": Synthesize,
    "transcribe": Transcribe,
    "fold": FoldTask,
    "translate": Translate,
}
