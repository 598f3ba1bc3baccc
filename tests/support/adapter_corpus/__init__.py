"""The corpus: every kind of adapter that was met, good and bad, each with the verdict that it must get.

    for case in CASES:
        folder = case.write(tmp_path)           # its files
        case.servable, case.codes, case.level   # what must be said of them, and from which level on
        case.base, case.engine                  # judged against
        case.askable, case.poisonous            # for the judge, which asks a real vLLM

Nothing is made before it is asked for, so that importing this costs nothing. Names are unique and stable.
"""

from support.adapter_corpus.bad_configs import BAD_CONFIGS
from support.adapter_corpus.bad_files import BAD_FILES
from support.adapter_corpus.bad_tensors import BAD_TENSORS
from support.adapter_corpus.bad_values import BAD_VALUES
from support.adapter_corpus.case import CPU, Case
from support.adapter_corpus.good_adapters import GOOD_ADAPTERS
from support.adapter_corpus.hostile_configs import HOSTILE_CONFIGS
from support.adapter_corpus.hostile_headers import HOSTILE_HEADERS, ODD_HEADERS
from support.adapter_corpus.of_old import OF_OLD_BAD, OF_OLD_GOOD
from support.adapter_corpus.other_bases import OTHER_BAD, OTHER_GOOD

GOOD: tuple[Case, ...] = (*GOOD_ADAPTERS, *ODD_HEADERS, *OF_OLD_GOOD, *OTHER_GOOD)
BAD: tuple[Case, ...] = (
    *BAD_CONFIGS,
    *BAD_TENSORS,
    *BAD_FILES,
    *BAD_VALUES,
    *HOSTILE_CONFIGS,
    *HOSTILE_HEADERS,
    *OF_OLD_BAD,
    *OTHER_BAD,
)
CASES: tuple[Case, ...] = (*GOOD, *BAD)

__all__ = ["BAD", "CASES", "CPU", "GOOD", "Case"]
