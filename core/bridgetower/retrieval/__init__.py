"""The tasks: each joins an index and an encoder through their protocols.

Folders -> index (`indexing`), text -> candidates -> verified hits (`candidates`, `matching`, `search`, a package),
text with a mask -> words (`fill`), captions -> recall@k (`evaluation`), captions -> the false ones (`curation`, a
package).

Imports index, pictures, files, `encoders.protocol` and `encoders.checked`, so that no task loads PyTorch. Above it:
models and library.
"""
