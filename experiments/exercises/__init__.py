"""The article's exercises, a file each: QUESTION, PREDICTION, `run`, `answer`, `draw`."""

EXERCISES = {  # the titles of their pages
    "rates": "Exercise 1: which rate in which layer",
    "epochs": "Exercise 2: more epochs, fewer images, early and late dropout",
    "variance": "Exercise 3: the variance of activations, with and without dropout",
    "inference": "Exercise 4: why dropout is off at test time",
    "width": "Exercise 5: wider and narrower layers",
    "decay": "Exercise 6: dropout beside weight decay and max-norm, "
    "and what dropout does to the loss",
    "dropconnect": "Exercise 7: DropConnect, which drops weights instead of units",
    "noises": "Exercise 8: other noise in the place of dropout",
    "uncertainty": "Exercise 9: what dropout says about uncertainty, "
    "random labels and noisy inputs",
}
