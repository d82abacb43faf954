"""Small experiments that really run, honest or sabotaged: the toy world of a sabotage audit.

After ASMR-Bench (Gan, Bhatt, Shlegeris, Stastny, Hebbar 2026): research code in which one
implementation detail was changed, so that its qualitative result flips. docs/experiments.md
describes the language.
"""

EXPERIMENTS_VERSION = 2  # raise it when the language, a result, a design or a sabotage changes
