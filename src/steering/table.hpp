#pragma once
// Collects what one hook point needs of SAEs and vectors, each once, then reads all rows of an SAE in one go.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <steer/sae/sae.hpp>

#include "steering/program.hpp"

namespace steer::steering::detail {

class TableBuilder {
 public:
  explicit TableBuilder(std::int64_t width) : width_(width) {}

  enum class TargetSide { encoder, decoder };
  /// First all that is wanted of SAEs ...
  void want(const Sae& sae, std::int64_t feature, TargetSide side);
  /// ... then it is read ...
  void gather();
  /// ... and has places.
  int place(const Sae& sae, std::int64_t feature, TargetSide side) const;
  /// A row for any vector, shared with equal ones.
  int add(const at::Tensor& vector);
  const at::Tensor& row(int index) const { return rows_[static_cast<std::size_t>(index)]; }
  ConstantTable finish() const;

 private:
  struct Wanted {
    std::optional<Sae> sae;
    std::map<std::int64_t, int> encoder, decoder;  // feature -> row
  };
  template <class ReadRows>
  void gather(std::map<std::int64_t, int>& wanted, ReadRows read_rows);

  std::int64_t width_;
  std::map<std::string, Wanted> wanted_;
  std::map<std::string, int> by_content_;
  std::vector<at::Tensor> rows_;
};

/// The register that reads a feature of an SAE, its encoder row (where one dot product is enough) at its place.
Register feature_register(const Sae& sae, std::int64_t feature, const TableBuilder& table);

}  // namespace steer::steering::detail
