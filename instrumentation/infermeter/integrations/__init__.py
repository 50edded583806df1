"""One module for each library that is watched without a change to the code that uses it.

The name of a module is that of its library, its entry point and its extra. What each has to have is told by
`infermeter.instruments.Integration`.
"""
