"""Lock files as their tools write them, shortened."""

from __future__ import annotations

FILES = "https://files.example.org/packages"
FORGE = "https://conda.anaconda.org/conda-forge"
INDEX = 'source = { registry = "https://index.example.org/simple" }'
SHA = {letter: letter * 64 for letter in "abcdef"}

PYLOCK = f"""\
lock-version = "1.0"
created-by = "uv"
requires-python = ">=3.9"
extras = ["gui"]
dependency-groups = ["dev"]
default-groups = []

[[packages]]
name = "anyio"
version = "4.12.1"
marker = "python_full_version < '3.10'"
index = "https://index.example.org/simple"
sdist = {{ url = "{FILES}/anyio-4.12.1.tar.gz", hashes = {{ sha256 = "{SHA["a"]}" }} }}
wheels = [{{ url = "{FILES}/anyio-4.12.1-py3-none-any.whl", hashes = {{ sha256 = "{SHA["b"]}" }} }}]

[[packages]]
name = "anyio"
version = "4.16.0"
marker = "python_full_version >= '3.10'"
index = "https://index.example.org/simple"
wheels = [{{ url = "{FILES}/anyio-4.16.0-py3-none-any.whl", hashes = {{ sha256 = "{SHA["c"]}" }} }}]

[[packages]]
name = "pyside6"
version = "6.8"
marker = "'gui' in extras"
wheels = [{{ url = "{FILES}/pyside6-6.8-py3-none-any.whl", hashes = {{ sha256 = "{SHA["d"]}" }} }}]

[[packages]]
name = "pytest"
version = "9.0"
marker = "'dev' in dependency_groups"
wheels = [{{ url = "{FILES}/pytest-9.0-py3-none-any.whl", hashes = {{ sha256 = "{SHA["e"]}" }} }}]

[[packages]]
name = "checkout"
vcs.type = "git"
vcs.url = "https://git.example/x.git"
vcs.commit-id = "0123456789"
vcs.subdirectory = "py"

[[packages]]
name = "archive"
archive = {{ url = "https://x.example/archive-1.zip", hashes = {{ sha256 = "{SHA["f"]}" }} }}

[[packages]]
name = "local"
directory = {{ path = "./local", editable = true }}
"""

UV = f"""\
version = 1
revision = 3
requires-python = ">=3.9"
resolution-markers = [
    "python_full_version >= '3.10'",
    "python_full_version < '3.10'",
]

[[package]]
name = "anyio"
version = "4.12.1"
source = {{ registry = "https://index.example.org/simple" }}
resolution-markers = [
    "python_full_version < '3.10'",
]
sdist = {{ url = "{FILES}/anyio-4.12.1.tar.gz", hash = "sha256:{SHA["a"]}", size = 1 }}
wheels = [
    {{ url = "{FILES}/anyio-4.12.1-py3-none-any.whl", hash = "sha256:{SHA["b"]}", size = 1 }},
]

[[package]]
name = "anyio"
version = "4.16.0"
source = {{ registry = "https://index.example.org/simple" }}
resolution-markers = [
    "python_full_version >= '3.10'",
]
wheels = [
    {{ url = "{FILES}/anyio-4.16.0-py3-none-any.whl", hash = "sha256:{SHA["c"]}", size = 1 }},
]

[[package]]
name = "checkout"
version = "0.1"
source = {{ git = "https://git.example/x.git?subdirectory=py&rev=main#0123456789abcdef" }}

[[package]]
name = "colorama"
version = "0.4.6"
source = {{ registry = "https://index.example.org/simple" }}
wheels = [
    {{ url = "{FILES}/colorama-0.4.6-py3-none-any.whl", hash = "sha256:{SHA["d"]}", size = 1 }},
]

[[package]]
name = "httpx"
version = "0.28"
source = {{ registry = "https://index.example.org/simple" }}
dependencies = [
    {{ name = "anyio", version = "4.12.1", {INDEX}, marker = "python_full_version < '3.10'" }},
    {{ name = "anyio", version = "4.16.0", {INDEX}, marker = "python_full_version >= '3.10'" }},
    {{ name = "colorama", marker = "sys_platform == 'win32'" }},
]
wheels = [
    {{ url = "{FILES}/httpx-0.28-py3-none-any.whl", hash = "sha256:{SHA["e"]}", size = 1 }},
]

[package.optional-dependencies]
http2 = [
    {{ name = "h2" }},
]

[[package]]
name = "h2"
version = "4.3"
source = {{ registry = "https://mirror.example/simple" }}
dependencies = [
    {{ name = "httpx" }},
]
wheels = [
    {{ url = "{FILES}/h2-4.3-py3-none-any.whl", hash = "sha256:{SHA["f"]}", size = 1 }},
]

[[package]]
name = "my-tool"
version = "0.1"
source = {{ editable = "." }}
dependencies = [
    {{ name = "httpx", extra = ["http2"] }},
    {{ name = "checkout" }},
    {{ name = "sibling" }},
]

[package.optional-dependencies]
gui = [
    {{ name = "pyside6" }},
]

[package.dev-dependencies]
dev = [
    {{ name = "pytest" }},
]

[package.metadata]
requires-dist = [
    {{ name = "httpx", extras = ["http2"] }},
    {{ name = "checkout", git = "https://git.example/x.git?subdirectory=py&rev=main" }},
]

[[package]]
name = "pyside6"
version = "6.8"
source = {{ url = "https://x.example/pyside6-6.8-py3-none-any.whl" }}
wheels = [
    {{ url = "https://x.example/pyside6-6.8-py3-none-any.whl", hash = "sha256:{SHA["a"]}" }},
]

[[package]]
name = "pytest"
version = "9.0"
source = {{ registry = "https://index.example.org/simple" }}
wheels = [
    {{ url = "{FILES}/pytest-9.0-py3-none-any.whl", hash = "sha256:{SHA["b"]}", size = 1 }},
]

[[package]]
name = "sibling"
version = "0.1"
source = {{ directory = "../sibling" }}
"""

UV_SCRIPT = f"""\
version = 1
revision = 3
requires-python = ">=3.9"

[manifest]
requirements = [{{ name = "requests", extras = ["socks"] }}]

[[package]]
name = "pysocks"
version = "1.7"
source = {{ registry = "https://index.example.org/simple" }}
wheels = [
    {{ url = "{FILES}/pysocks-1.7-py3-none-any.whl", hash = "sha256:{SHA["a"]}", size = 1 }},
]

[[package]]
name = "requests"
version = "2.32"
source = {{ registry = "https://index.example.org/simple" }}
wheels = [
    {{ url = "{FILES}/requests-2.32-py3-none-any.whl", hash = "sha256:{SHA["b"]}", size = 1 }},
]

[package.optional-dependencies]
socks = [
    {{ name = "pysocks" }},
]
"""

PIXI_5 = f"""\
version: 5
environments:
  default:
    channels:
    - url: {FORGE}/
    indexes:
    - https://index.example.org/simple
    packages:
      linux-64:
      - conda: {FORGE}/linux-64/python-3.11-0.conda
      - pypi: {FILES}/rich-13-py3-none-any.whl
packages:
- kind: conda
  name: python
  version: '3.11'
  build: '0'
  subdir: linux-64
  url: {FORGE}/linux-64/python-3.11-0.conda
  sha256: {SHA["a"]}
  md5: {"1" * 32}
- kind: pypi
  name: rich
  version: '13'
  url: {FILES}/rich-13-py3-none-any.whl
  sha256: {SHA["b"]}
  requires_python: '>=3.7.0'
"""

PIXI_6 = f"""\
version: 6
environments:
  default:
    channels:
    - url: {FORGE}/
    indexes:
    - https://index.example.org/simple
    options:
      pypi-prerelease-mode: if-necessary-or-explicit
    packages:
      # what the environment has, by platform
      linux-64:
      - conda: {FORGE}/linux-64/python-3.11-0.conda
      - conda: {FORGE}/noarch/tzdata-2026-0.conda
      - pypi: {FILES}/rich-13-py3-none-any.whl
      - pypi: ./tool
  test:
    channels:
    - url: {FORGE}/
    packages:
      linux-64:
      - conda: {FORGE}/noarch/tzdata-2026-0.conda
packages:
- conda: {FORGE}/linux-64/python-3.11-0.conda
  sha256: {SHA["a"]}
  md5: {"1" * 32}
  depends:
  - tzdata
  license: PSF
- conda: {FORGE}/noarch/tzdata-2026-0.conda
  sha256: {SHA["c"]}
- pypi: {FILES}/rich-13-py3-none-any.whl
  name: rich
  version: '13'
  sha256: {SHA["b"]}
- pypi: ./tool
  name: tool
  version: 0.1.0
  sha256: {SHA["d"]}
  editable: true
"""

PIXI_7 = f"""\
version: 7
platforms:
  - name: gpu-machine
    subdir: linux-64
    virtual-packages:
      - __cuda >= 12
  - name: win-64
environments:
  default:
    channels:
      - url: {FORGE}/
    packages:
      gpu-machine:
        - conda: {FORGE}/linux-64/python-3.11-0.conda
        - pypi: https://git.example/rich-13-py3-none-any.whl
packages:
  - conda: {FORGE}/linux-64/python-3.11-0.conda
    sha256: {SHA["a"]}
  - pypi: https://git.example/rich-13-py3-none-any.whl
    name: rich
    version: '13'
    sha256: {SHA["b"]}
    index: https://git.example/simple
"""

EXPLICIT = f"""\
# platform: linux-64
@EXPLICIT
{FORGE}/linux-64/python-3.11-0.conda#{"1" * 32}
{FORGE}/noarch/tzdata-2026-0.conda#sha256:{SHA["a"]}
{FORGE}/noarch/old-1-0.tar.bz2
"""
