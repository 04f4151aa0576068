# `cpack -G DEB` in a build of the preset consumer makes the Debian package; `cpack -G TGZ` the same as an archive.
set(CPACK_PACKAGE_VENDOR "steer")
set(CPACK_PACKAGE_CONTACT "the authors of steer <steer@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_RESOURCE_FILE_LICENSE "${PROJECT_SOURCE_DIR}/LICENSE")
set(CPACK_PACKAGE_FILE_NAME "steer_${PROJECT_VERSION}_${CMAKE_SYSTEM_PROCESSOR}")
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
# What the programs link is read from them; what a program built with the library needs beside it is said here. libtorch
# of the version needed is no Debian package.
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS "${TORCH_INSTALL_PREFIX}/lib")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS
    "g++, cmake, pkg-config, libfmt-dev, nlohmann-json3-dev, libsentencepiece-dev, libpcre2-dev, libxxhash-dev, zlib1g-dev, libssl-dev, libcpp-httplib-dev, libzstd-dev")
include(CPack)
