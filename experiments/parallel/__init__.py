"""Several processes and devices train one network: is it the same one, and how much faster?"""
