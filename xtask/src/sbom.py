"""Prints a software bill of materials of one program, as CycloneDX 1.6 JSON.

Arguments: the name of the program's package; the output of `cargo metadata` and of `cargo tree`, and
Cargo.lock, as files; the version of ONNX Runtime. The same input gives the same output: there is no time
in it, and the serial number follows from the content.
"""

import json
import re
import sys
import uuid

program, metadata, tree, lock, onnxruntime = sys.argv[1:]
metadata = json.load(open(metadata))
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
[root] = [id for id in metadata["workspace_members"] if packages[id]["name"] == program]
entry = re.compile(r'\[\[package\]\]\nname = "(.*)"\nversion = "(.*)"\n(?:source = ".*"\n)?checksum = "(.*)"\n')
checksums = {(name, version): checksum for name, version, checksum in entry.findall(open(lock).read())}
# The metadata has the features that all packages of the workspace need together. The tree has those of
# this program alone, and so fewer packages.
built = set(re.findall(r"^(\S+) v(\S+)", open(tree).read(), re.MULTILINE))


def purl(id):
    return f"pkg:cargo/{packages[id]['name']}@{packages[id]['version'].replace('+', '%2B')}"


def runs_at_build(id):
    return any("proc-macro" in target["kind"] for target in packages[id]["targets"])


def dependencies(id, kinds):
    """Returns the packages on which one depends in one of these ways: None is a normal dependency."""
    found = (dep["pkg"] for dep in nodes[id]["deps"] if any(kind["kind"] in kinds for kind in dep["dep_kinds"]))
    return sorted({id for id in found if (packages[id]["name"], packages[id]["version"]) in built}, key=purl)


def reached(start, follow):
    found, open_ids = set(start), list(start)
    while open_ids:
        new = [id for id in follow(open_ids.pop()) if id not in found]
        found.update(new)
        open_ids.extend(new)
    return found


def linked_dependencies(id):
    return [dep for dep in dependencies(id, {None}) if not runs_at_build(dep)]


# What ends up in the program, and what else its build runs.
linked = reached([root], linked_dependencies)
everything = reached([root], lambda id: dependencies(id, {None, "build"}))


def component(id):
    package = packages[id]
    one = {
        "type": "application" if id == root else "library",
        "bom-ref": purl(id),
        "name": package["name"],
        "version": package["version"],
        "scope": "required" if id in linked else "excluded",
        "purl": purl(id),
    }
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        one["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["license"]:
        # Older crates separate alternatives by a slash.
        one["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    return one


runtime = {
    "type": "library",
    "bom-ref": f"pkg:pypi/onnxruntime@{onnxruntime}",
    "name": "onnxruntime",
    "version": onnxruntime,
    "description": "ONNX Runtime: a shared library that the program loads when it runs. It is shipped beside the "
    "program, not in it: this is the version that the program is tested with.",
    "scope": "required",
    "licenses": [{"expression": "MIT"}],
    "purl": f"pkg:pypi/onnxruntime@{onnxruntime}",
}
main = component(root)
del main["scope"]
others = sorted(everything - {root}, key=purl)
graph = [{"ref": purl(id), "dependsOn": [purl(dep) for dep in dependencies(id, {None, "build"})]} for id in [root, *others]]
graph[0]["dependsOn"].append(runtime["bom-ref"])
document = {
    "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "version": 1,
    "metadata": {"lifecycles": [{"phase": "build"}], "component": main},
    "components": [*(component(id) for id in others), runtime],
    "dependencies": [*graph, {"ref": runtime["bom-ref"]}],
}
serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document))
print(json.dumps({**document, "serialNumber": f"urn:uuid:{serial}"}, indent=2, ensure_ascii=False))
