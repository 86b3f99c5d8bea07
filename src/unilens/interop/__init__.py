"""At home among other libraries: captum, Quantus, and tables as scikit-learn knows them.

Each module is imported by itself, and needs the library that it is for.
"""
