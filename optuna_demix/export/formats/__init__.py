"""The export formats, a module for each family of readers.

A format is a pure function from the sources of a mixture, or the stages of a run, to the text of a
file. Readers that draw whole examples get shares of examples, all others shares of tokens.
"""
