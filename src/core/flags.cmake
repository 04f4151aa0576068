# steer_isa_sources(TARGET MODULE NAME [FLAGS ...]): compiles src/MODULE/NAME-inl.hpp into the target once for each
# instruction set, as core/isa.hpp says. The objects skip the precompiled header: it is made without their flags, and they
# must not instantiate inline functions of other headers.
function(steer_isa_sources target module name)
  set(isas portable)
  set(portable_flags "")
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(APPEND isas avx2 avx512)
    set(avx2_flags -mavx2 -mfma -mf16c)
    set(avx512_flags ${avx2_flags} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mprefer-vector-width=512)
    # gcc 12 takes the undefined operands in its own AVX-512 header for mistakes (PR 105593).
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      list(APPEND avx512_flags -Wno-uninitialized -Wno-maybe-uninitialized)
    endif()
  endif()
  foreach(isa IN LISTS isas)
    set(source "${PROJECT_BINARY_DIR}/generated/isa/${module}/${name}_${isa}.cpp")
    file(CONFIGURE OUTPUT "${source}" CONTENT "#define STEER_ISA ${isa}\n#include \"${module}/${name}-inl.hpp\"\n")
    target_sources(${target} PRIVATE "${source}")
    set_source_files_properties("${source}" PROPERTIES SKIP_PRECOMPILE_HEADERS ON COMPILE_OPTIONS
      "-O3;-ffp-contract=fast;-fno-math-errno;-fno-trapping-math;${${isa}_flags};${ARGN}")
  endforeach()
endfunction()

# The same into the module's own library.
function(steer_for_each_isa module name)
  steer_isa_sources(steer_${module} ${module} ${name} ${ARGN})
endfunction()
