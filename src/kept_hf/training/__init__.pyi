from .collators import DataCollatorForICDPrompting as DataCollatorForICDPrompting
from .evaluation import ICDMetrics as ICDMetrics
from .publication import CheckPublication as CheckPublication
from .rows import CandidatePrompts as CandidatePrompts
from .rows import prompt_rows as prompt_rows
