"""Routes in the forms of other services, for their clients: pictures scored with a text, and vectors.

`schemas` has the fields, `items` reads the texts and pictures in them. No URL is opened and no path is read.
"""
