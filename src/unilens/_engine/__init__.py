"""How a model is run: on a private copy, proven equal to the user's module, in bounded memory."""
