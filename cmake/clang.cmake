# Toolchain of the presets fuzz and clang: clang++, or the newest that carries its version in its name (Debian's clang++-16).
find_program(STEER_CLANG NAMES clang++ clang++-22 clang++-21 clang++-20 clang++-19 clang++-18 clang++-17 clang++-16 clang++-15)
if(NOT STEER_CLANG)
  message(FATAL_ERROR "This preset needs clang++ 15 or newer, and none is on PATH; install it: apt-get install clang-16")
endif()
set(CMAKE_CXX_COMPILER "${STEER_CLANG}")
