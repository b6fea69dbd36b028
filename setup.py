"""Builds the C++ extension `polybeast_moe._C`, the programs beside it, and puts `configs/` into a wheel.

All else is in pyproject.toml.
"""

import os
import shutil
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup
from setuptools.command.build_py import build_py

PROGRAMS = {"pbm-actor": "csrc/actor/main.cc", "pbm-games": "csrc/envs/main.cc"}
parts = sorted(
    {str(path) for path in Path("csrc").glob("*/*.cc")} - set(PROGRAMS.values())
)  # what the extension and the programs share
flags = ["-O3", "-Wall", "-Wextra", "-fvisibility=hidden", "-fno-strict-aliasing"]
sanitize = os.environ.get("PBM_SANITIZE")  # e.g. address,undefined: for the sanitizer builds of the tests
if sanitize:
    flags += [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g1", "-O1"]

extension = Pybind11Extension(
    "polybeast_moe._C",
    [*sorted(str(path) for path in Path("csrc").glob("bindings*.cc")), *parts],
    include_dirs=["csrc"],
    cxx_std=20,
    extra_compile_args=flags,
    libraries=["dl", "pthread"],  # parts of libc itself only since glibc 2.34
    extra_link_args=[f"-fsanitize={sanitize}"] if sanitize else [],
    depends=[*sorted(str(path) for path in Path("csrc").rglob("*.h")), *PROGRAMS.values()],  # also what an sdist holds
)


class BuildPackageAndConfigurations(build_py):
    """Puts the configurations into the package, unless that is used in place, beside the repository's `configs/`."""

    def run(self) -> None:
        """Copies modules and configurations to where a wheel is made."""
        super().run()
        if not self.editable_mode:
            inside = Path(self.build_lib) / "polybeast_moe" / "configs"
            shutil.rmtree(inside, ignore_errors=True)  # what an earlier build left
            shutil.copytree("configs", inside)


class BuildExtensionAndPrograms(build_ext):
    """Builds the programs beside the extension: processes that play games load no interpreter."""

    def build_extensions(self) -> None:
        """Compiles and links all of them."""
        super().build_extensions()
        objects = self.compiler.compile(
            [*PROGRAMS.values(), *parts],
            output_dir=str(Path(self.build_temp) / "programs"),
            include_dirs=["csrc"],
            extra_postargs=["-std=c++20", *flags],
        )
        mains, shared = objects[: len(PROGRAMS)], objects[len(PROGRAMS) :]
        for program, main in zip(PROGRAMS, mains, strict=True):
            self.compiler.link_executable(
                [main, *shared],
                program,
                output_dir=str(Path(self.get_ext_fullpath("polybeast_moe._C")).parent),
                libraries=extension.libraries,
                target_lang="c++",
                extra_postargs=extension.extra_link_args,
            )

    def copy_extensions_to_source(self) -> None:
        """Puts all of them into the source tree, for an editable install."""
        super().copy_extensions_to_source()
        for program in PROGRAMS:
            built = Path(self.build_lib) / "polybeast_moe" / program
            self.copy_file(str(built), str(Path(__file__).parent / "polybeast_moe" / program))


ParallelCompile("PBM_BUILD_JOBS", default=os.cpu_count() or 1).install()
setup(
    ext_modules=[extension],
    cmdclass={"build_ext": BuildExtensionAndPrograms, "build_py": BuildPackageAndConfigurations},
)
