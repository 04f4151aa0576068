# Targets for libraries that ship no CMake package of use, made here for the project and for those who install it
# (steerConfig.cmake): the paths are of the machine that builds a program, never of the one that built steer.

# An imported target for a library that ships neither a CMake package nor a usable one.
function(_steer_import target header library)
  if(TARGET ${target})
    return()
  endif()
  string(MAKE_C_IDENTIFIER "STEER_${library}" id)
  find_path(${id}_INCLUDE ${header})
  find_library(${id}_LIBRARY ${library})
  mark_as_advanced(${id}_INCLUDE ${id}_LIBRARY)
  if(${id}_INCLUDE AND ${id}_LIBRARY)
    add_library(${target} UNKNOWN IMPORTED GLOBAL)
    set_target_properties(${target} PROPERTIES IMPORTED_LOCATION "${${id}_LIBRARY}"
                          INTERFACE_INCLUDE_DIRECTORIES "${${id}_INCLUDE}")
  endif()
endfunction()

# Everything libtorch's package found, behind one name, so that an export mentions no file of it.
function(_steer_import_torch)
  if(NOT TARGET steer::dep_torch)
    add_library(steer::dep_torch INTERFACE IMPORTED GLOBAL)
    # libtorch's wheels carry parts of an older libstdc++ and give them away under their own names: with libtorch for CUDA
    # std::filesystem::remove_all of a program that finds those first calls a null pointer. So the compiler's own is found
    # first.
    if(UNIX AND NOT APPLE)
      target_link_libraries(steer::dep_torch INTERFACE stdc++)
    endif()
    target_link_libraries(steer::dep_torch INTERFACE ${TORCH_LIBRARIES})
  endif()
endfunction()

# libtorch brings a libgomp of its own; a program must not run two, so steer links that one where it exists. clang writes
# calls to another runtime, which answers libgomp's names too.
function(_steer_import_openmp)
  if(TARGET steer::dep_openmp OR NOT TARGET OpenMP::OpenMP_CXX)
    return()
  endif()
  add_library(steer::dep_openmp INTERFACE IMPORTED GLOBAL)
  target_compile_options(steer::dep_openmp INTERFACE ${OpenMP_CXX_FLAGS})
  file(GLOB gomp "${TORCH_INSTALL_PREFIX}/lib/libgomp*.so*")
  if(gomp AND NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    list(GET gomp 0 gomp)
    target_link_libraries(steer::dep_openmp INTERFACE "${gomp}")
  else()
    target_link_libraries(steer::dep_openmp INTERFACE OpenMP::OpenMP_CXX)
  endif()
endfunction()
