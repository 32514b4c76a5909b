"""Fashion-MNIST for tensorflow-datasets, prepared and read without TensorFlow."""
