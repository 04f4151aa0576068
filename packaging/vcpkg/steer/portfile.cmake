# An overlay port over a checkout: vcpkg install steer --overlay-ports=packaging/vcpkg   (docs/building.md)
# libtorch comes from outside, by Torch_DIR in the environment: steer needs its own version of it, which vcpkg lacks.
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT DEFINED ENV{Torch_DIR})
  message(FATAL_ERROR "steer: expected Torch_DIR, the folder of libtorch's TorchConfig.cmake, in the environment \
(VCPKG_KEEP_ENV_VARS=Torch_DIR)")
endif()
vcpkg_cmake_configure(SOURCE_PATH "${SOURCE_PATH}" OPTIONS "-DTorch_DIR=$ENV{Torch_DIR}" -DSTEER_BUILD_TESTS=OFF
                      -DSTEER_BUILD_EXAMPLES=OFF -DSTEER_BUILD_BENCH=OFF -DSTEER_BUILD_DOCS=OFF)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH lib/cmake/steer)
vcpkg_fixup_pkgconfig()
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug/include")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
