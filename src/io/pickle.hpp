#pragma once
// The part of Python's pickle, protocol 2, that torch.save uses for tensors in containers. Nothing is imported and
// nothing is called: the six global names that may occur are recognised, every other one is an error.

#include <c10/core/ScalarType.h>

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "io/bytes.hpp"

namespace steer::io::detail {

enum class PickleKind : std::uint8_t { none, boolean, integer, real, text, tuple, list, dict, global, storage, tensor };

/// One value. Everything larger than a number lives in its document and is named by `index`, so values may refer to
/// each other in any way, cycles included, without ownership.
struct PickleValue {
  PickleKind kind = PickleKind::none;
  std::uint32_t index = 0;
  union {
    std::int64_t integer = 0;  // and bool
    double real;
  };
};

/// What a global name stands for. All `torch.*Storage` are `storage_type`; their dtype is in PickleValue::integer.
enum class PickleGlobal : std::uint32_t { rebuild_tensor, rebuild_parameter, ordered_dict, storage_type, size, device };

/// A reference to a block of numbers outside the pickle.
struct PickleStorage {
  at::ScalarType dtype;
  std::string key;
  std::int64_t count;  ///< elements
};

/// A strided view of a storage.
struct PickleTensor {
  std::uint32_t storage;
  std::int64_t offset;  ///< in elements
  std::vector<std::int64_t> sizes, strides;
};

/// A pickle's values. Deques, so that growing never moves what is there.
struct PickleDocument {
  PickleValue root;
  std::deque<std::string> texts;
  std::deque<std::vector<PickleValue>> sequences;                      // tuples and lists
  std::deque<std::vector<std::pair<PickleValue, PickleValue>>> dicts;  // in insertion order
  std::deque<PickleStorage> storages;
  std::deque<PickleTensor> tensors;
};

/// Memory that values read from a hostile file may take in all.
class MemoryBudget {
 public:
  MemoryBudget(std::size_t bytes, std::string_view where, std::string what)
      : left_(bytes), where_(where), what_(std::move(what)) {}
  /// @throws Error(format) when no more is left.
  void charge(std::size_t bytes) {
    require(bytes <= left_, ErrorCode::format, where_,
            "expected values that fit the memory a file of this size may take but "
            "got more ({})",
            what_);
    left_ -= bytes;
  }

 private:
  std::size_t left_;
  std::string_view where_;
  std::string what_;
};

/// @throws Error(unsupported) that names an opcode or a global name outside the list, Error(format) for a malformed
///         pickle.
/// @param used  receives the bytes that the pickle took, if others may follow it; nullptr: none may.
PickleDocument unpickle(Bytes bytes, MemoryBudget& budget, const std::string& file, std::size_t* used = nullptr);

}  // namespace steer::io::detail
