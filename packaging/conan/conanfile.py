"""conan create packaging/conan --build=missing -o 'steer/*:torch_dir=FOLDER_OF_TorchConfig.cmake'   (docs/building.md)

libtorch comes from outside: steer needs its own version of it. The other libraries are the system's, as docs/building.md
lists them; set system_libraries=False to take them from Conan.
"""
import os

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout
from conan.tools.files import copy


class Steer(ConanFile):
    name = "steer"
    version = "0.2.0"
    license = "Apache-2.0"
    description = "Read and steer language models through their internals, and measure what it costs"
    settings = "os", "compiler", "build_type", "arch"
    options = {"shared": [True, False], "torch_dir": ["ANY"], "system_libraries": [True, False]}
    default_options = {"shared": False, "torch_dir": "", "system_libraries": True}

    def requirements(self):
        if not self.options.system_libraries:
            for name in ("boost/1.86.0", "cpp-httplib/0.18.0", "eigen/3.4.0", "fmt/9.1.0", "nlohmann_json/3.11.3",
                         "openssl/3.3.2", "pcre2/10.44", "sentencepiece/0.2.0", "xxhash/0.8.2", "zlib/1.3.1",
                         "zstd/1.5.6"):
                self.requires(name)

    def export_sources(self):
        root = os.path.join(self.recipe_folder, "..", "..")
        copy(self, "CMakeLists.txt", root, self.export_sources_folder)
        copy(self, "LICENSE", root, self.export_sources_folder)
        for folder in ("cmake", "include", "src"):
            copy(self, f"{folder}/*", root, self.export_sources_folder)

    def layout(self):
        cmake_layout(self)

    def generate(self):
        toolchain = CMakeToolchain(self)
        toolchain.blocks.remove("arch_flags")  # -m64: steer runs on 64-bit machines only
        toolchain.variables["Torch_DIR"] = str(self.options.torch_dir)
        for part in ("TESTS", "EXAMPLES", "BENCH", "DOCS"):
            toolchain.variables[f"STEER_BUILD_{part}"] = False
        toolchain.generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build(target="steer")

    def package(self):
        CMake(self).install()

    def package_info(self):
        self.cpp_info.set_property("cmake_find_mode", "none")  # steer's own package files, in lib/cmake/steer
        self.cpp_info.builddirs = [os.path.join("lib", "cmake", "steer")]
