"""Builds the C++ extension `polybeast_moe._C` and the program `pbm-actor`; all else is in pyproject.toml."""

import os
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup

ACTOR = "pbm-actor"
ACTOR_MAIN = "csrc/actor/main.cc"
parts = sorted(
    {str(path) for path in Path("csrc").glob("*/*.cc")} - {ACTOR_MAIN}
)  # what the extension and the actor share
flags = ["-O3", "-Wall", "-Wextra", "-fvisibility=hidden", "-fno-strict-aliasing"]
sanitize = os.environ.get("PBM_SANITIZE")  # e.g. address,undefined: for the sanitizer builds of the tests
if sanitize:
    flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g"]

extension = Pybind11Extension(
    "polybeast_moe._C",
    ["csrc/bindings.cc", *parts],
    include_dirs=["csrc"],
    cxx_std=20,
    extra_compile_args=flags,
    extra_link_args=[f"-fsanitize={sanitize}"] if sanitize else [],
    depends=sorted(str(path) for path in Path("csrc").rglob("*.h")),
)


class BuildExtensionAndActor(build_ext):
    """Builds the program `pbm-actor` beside the extension: actor processes load no interpreter."""

    def build_extensions(self) -> None:
        """Compiles and links both."""
        super().build_extensions()
        objects = self.compiler.compile(
            [ACTOR_MAIN, *parts],
            output_dir=str(Path(self.build_temp) / "actor"),
            include_dirs=["csrc"],
            extra_postargs=["-std=c++20", *flags],
        )
        folder = Path(self.get_ext_fullpath("polybeast_moe._C")).parent
        self.compiler.link_executable(
            objects,
            ACTOR,
            output_dir=str(folder),
            target_lang="c++",
            extra_postargs=extension.extra_link_args,
        )

    def copy_extensions_to_source(self) -> None:
        """Puts both into the source tree, for an editable install."""
        super().copy_extensions_to_source()
        built = Path(self.build_lib) / "polybeast_moe" / ACTOR
        self.copy_file(str(built), str(Path(__file__).parent / "polybeast_moe" / ACTOR))


ParallelCompile("PBM_BUILD_JOBS", default=os.cpu_count() or 1).install()
setup(ext_modules=[extension], cmdclass={"build_ext": BuildExtensionAndActor})
