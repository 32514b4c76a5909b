"""The article's exercises, a file each: QUESTION, `predict`, `run`, `answer` and `draw`."""

EXERCISES = (
    "rates",
    "epochs",
    "variance",
    "inference",
    "width",
    "decay",
    "dropconnect",
    "noises",
    "uncertainty",
)
