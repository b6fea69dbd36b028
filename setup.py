"""Builds the C++ extension `polybeast_moe._C`; everything else about the package is in pyproject.toml."""

import os
from glob import glob

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup

sources = sorted(glob("csrc/*.cc") + glob("csrc/nethack/*.cc") + glob("csrc/shm/*.cc") + glob("csrc/actor/*.cc"))
flags = ["-O3", "-Wall", "-Wextra", "-fvisibility=hidden", "-fno-strict-aliasing"]
sanitize = os.environ.get("PBM_SANITIZE")  # e.g. address,undefined: for the sanitizer builds of the tests
if sanitize:
    flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g"]

extension = Pybind11Extension(
    "polybeast_moe._C",
    sources,
    include_dirs=["csrc"],
    cxx_std=20,
    extra_compile_args=flags,
    extra_link_args=[f"-fsanitize={sanitize}"] if sanitize else [],
    depends=sorted(glob("csrc/**/*.h", recursive=True) + glob("csrc/**/*.inc", recursive=True)),
)

ParallelCompile("PBM_BUILD_JOBS", default=os.cpu_count() or 1).install()
setup(ext_modules=[extension], cmdclass={"build_ext": build_ext})
