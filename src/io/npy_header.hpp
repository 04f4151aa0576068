#pragma once

#include <c10/core/ScalarType.h>

#include <string>
#include <vector>

#include "io/bytes.hpp"

namespace steer::io::detail {

/// The head of an npy file (numpy.lib.format, versions 1 to 3).
struct NpyHeader {
  std::string descr;  ///< as in the file: "<f4"; "structured" for an array of structures
  at::ScalarType dtype = at::ScalarType::Undefined;
  std::vector<std::int64_t> shape;
  bool fortran_order = false;
  std::int64_t data_begin = 0;
  std::int64_t data_bytes = 0;
};

/// Most bytes that a header may take, its preamble included.
inline constexpr std::size_t kMaxNpyHeader = 65536;

/// @param bytes  the file's first bytes: all of it, or kMaxNpyHeader.
/// Whether `descr` is of texts, bytes, dates, objects or structures: nothing that a tensor could be.
bool is_no_number(std::string_view descr);

/// For arrays of numbers; of others (`is_no_number`) dtype is Undefined and data_bytes 0.
/// @throws Error(format), Error(unsupported) for numbers of an unknown type or another byte order.
NpyHeader parse_npy_header(Bytes bytes, const std::string& file);

}  // namespace steer::io::detail
