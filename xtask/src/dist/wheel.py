"""Writes a wheel that contains one program, and prints its path.

Arguments: the program, the version, the licence file, the readme, the folder of the wheel, and the
bill of materials, if there is one.
"""

import base64
import hashlib
import os
import platform
import re
import sys
import zipfile

program, version, license, readme, folder, *sboms = sys.argv[1:]
# The oldest C library that has all the symbols that the program refers to.
glibc = max(
    (
        tuple(map(int, found.split(b".")))
        for found in re.findall(rb"GLIBC_(2\.[0-9]+)\b", open(program, "rb").read())
    ),
    default=None,
)
if glibc is None:
    sys.exit(f"cannot pack {program}: it refers to no symbol of glibc, which the tag of the wheel names")
tag = f"py3-none-manylinux_{glibc[0]}_{glibc[1]}_{platform.machine()}"
info = f"hostler-{version}.dist-info"
metadata = f"""\
Metadata-Version: 2.4
Name: hostler
Version: {version}
Summary: A native inference host: ONNX models and WebAssembly plugins, swapped live
License-Expression: Apache-2.0
License-File: LICENSE
Requires-Python: >=3.8
Requires-Dist: onnxruntime>=1.31
Description-Content-Type: text/markdown

"""
wheel = f"Wheel-Version: 1.0\nGenerator: hostler\nRoot-Is-Purelib: false\nTag: {tag}\n"
files = [
    (f"hostler-{version}.data/scripts/hostler", open(program, "rb").read(), 0o755),
    (f"{info}/METADATA", metadata.encode() + open(readme, "rb").read(), 0o644),
    (f"{info}/WHEEL", wheel.encode(), 0o644),
    (f"{info}/licenses/LICENSE", open(license, "rb").read(), 0o644),
    # Where PEP 770 puts them.
    *((f"{info}/sboms/{os.path.basename(path)}", open(path, "rb").read(), 0o644) for path in sboms),
]
record = []
for name, data, _ in files:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    record.append(f"{name},sha256={digest},{len(data)}\n")
record.append(f"{info}/RECORD,,\n")
files.append((f"{info}/RECORD", "".join(record).encode(), 0o644))

path = os.path.join(folder, f"hostler-{version}-{tag}.whl")
with zipfile.ZipFile(path + ".new", "w", zipfile.ZIP_DEFLATED) as archive:
    for name, data, mode in files:
        # A fixed time, so that the same program gives the same wheel.
        entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        entry.external_attr = (0o100000 | mode) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, data)
os.replace(path + ".new", path)
print(path)
