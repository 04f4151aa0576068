#pragma once
// What a kind of edit is. Each kind is one file of this folder: a struct that derives from `Kind` and states all that
// anyone asks of it; what it leaves out does not compile. registry.cpp lists them. No other file names a kind.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>
#include <steer/steering/steering.hpp>

#include "core/format_text.hpp"
#include "steering/checks.hpp"
#include "steering/instruction.hpp"

namespace steer::steering::detail {

/// The value of one parameter of an edit.
using Value =
    std::variant<at::Tensor, double, std::int64_t, bool, std::string, Sae, std::shared_ptr<const CustomFunction>>;
bool same(const Value& a, const Value& b);

/// A parameter by the name it has in files (docs/steering-schema.md).
struct Field {
  std::string_view name;
  Value value;
};

/// Where a kind's parameters come from when an edit is read.
class FieldReader {
 public:
  virtual ~FieldReader() = default;
  virtual bool has(std::string_view name) = 0;
  virtual void get(std::string_view name, at::Tensor& value) = 0;
  virtual void get(std::string_view name, double& value) = 0;
  virtual void get(std::string_view name, std::int64_t& value) = 0;
  virtual void get(std::string_view name, bool& value) = 0;
  virtual void get(std::string_view name, std::string& value) = 0;
  virtual void get(std::string_view name, std::optional<Sae>& value) = 0;
  virtual void get(std::string_view name, std::shared_ptr<const CustomFunction>& value) = 0;
};

/// An edit in terms of instruction.hpp, before its rows have places in a table. One of three: registers on rows of its
/// own, a change of an SAE's feature, or a function of whole activations.
struct Lowered {
  struct Channel {
    Reading reading = Reading::nothing;
    at::Tensor read{}, write{};  ///< [width]; `write` undefined for Reading::norm
    double offset = 0;           ///< added to the dot product
  };
  struct Feature {
    Sae sae;
    std::int64_t index = 0;
    bool read = false;  ///< its activation matters to the change
  };
  std::vector<Channel> channels{};  ///< one, or two with `change.pair`
  std::optional<Feature> feature{};
  Change change{};

  std::shared_ptr<const CustomFunction> function{};  ///< h <- h + s (f(h) - h)
  std::optional<Sae> sae{};                          ///< that the function runs: must fit the place
};

/// What an edit does.
class Operation {
 public:
  virtual ~Operation() = default;
  virtual std::string_view kind() const = 0;
  virtual std::vector<Field> fields() const = 0;
  virtual void read(FieldReader& reader) = 0;
  /// Replaces its vectors by contiguous f32 copies. @throws Error(shape | argument) for what is no finite vector.
  virtual void own(std::string_view where) = 0;

  /// Its parameters in words, to follow the kind.
  virtual std::string describe() const = 0;
  /// Whether it can be measured in a unit other than raw.
  virtual bool takes(StrengthUnit unit) const = 0;
  /// @throws Error for what can be wrong with its parameters.
  virtual void validate(StrengthUnit unit, std::string_view where) const = 0;
  /// Whether it leaves every activation as it is, whatever it is.
  virtual bool identity() const = 0;
  /// The edit, scaled by its strength and measured in its unit.
  virtual Lowered lower(const Edit& edit) const = 0;
  /// Controls: the same edit somewhere else, as large (`elsewhere`), or as Gaussian noise of its size (`noise`).
  /// Nothing where the kind has no such thing. An edit with every sign turned is its strength times -1, for all kinds.
  virtual std::optional<Edit> elsewhere(const Edit& edit, Rng& rng) const = 0;
  virtual std::optional<Edit> noise(const Edit& edit, Rng& rng) const = 0;
};

/// A kind's name and how to make an empty one to read into.
struct Factory {
  std::string_view kind;
  std::shared_ptr<Operation> (*make)();
};
/// All kinds.
std::span<const Factory* const> kinds();
/// @throws Error(format) for an unknown kind, on behalf of `what`.
const Factory& kind_named(std::string_view kind, std::string_view what, std::string_view where);

/// What all kinds do alike, from `Derived::parameters`, which names each parameter once:
///     v(name, member)                 always written, required when read
///     v(name, member, fallback)       always written, may be absent when read
///     v.sparse(name, member, absent)  written unless equal to `absent`
template <class Derived>
class Kind : public Operation {
 public:
  std::string_view kind() const final { return Derived::kKind; }

  std::vector<Field> fields() const final {
    std::vector<Field> list;
    Derived::parameters(static_cast<const Derived&>(*this), Lister{list});
    return list;
  }
  void read(FieldReader& reader) final { Derived::parameters(static_cast<Derived&>(*this), Filler{reader}); }
  void own(std::string_view where) final { Derived::parameters(static_cast<Derived&>(*this), Owner{where}); }

 private:
  struct Lister {
    std::vector<Field>& list;
    template <class T>
    void operator()(std::string_view name, const T& value) const {
      if constexpr (std::is_enum_v<T>)
        list.push_back({name, std::string(to_string(value))});
      else if constexpr (std::is_same_v<T, std::optional<Sae>>)
        list.push_back({name, *value});
      else
        list.push_back({name, value});
    }
    template <class T>
    void operator()(std::string_view name, const T& value, const T&) const {
      (*this)(name, value);
    }
    template <class T>
    void sparse(std::string_view name, const T& value, const T& absent) const {
      if (value != absent) (*this)(name, value);
    }
  };
  struct Filler {
    FieldReader& reader;
    template <class T>
    void operator()(std::string_view name, T& value) const {
      if constexpr (std::is_enum_v<T>) {
        std::string text;
        reader.get(name, text);
        value = parse_enum<T>(text, "Steering::from_json");
      } else {
        reader.get(name, value);
      }
    }
    template <class T>
    void operator()(std::string_view name, T& value, const T& fallback) const {
      if (reader.has(name))
        (*this)(name, value);
      else
        value = fallback;
    }
    template <class T>
    void sparse(std::string_view name, T& value, const T& absent) const {
      (*this)(name, value, absent);
    }
  };
  struct Owner {
    std::string_view where;
    template <class T, class... Rest>
    void operator()(std::string_view name, T& value, const Rest&...) const {
      if constexpr (std::is_same_v<T, at::Tensor>)
        value = own_vector(value, format_text("a vector as \"{}\"", name), where);
    }
    template <class T>
    void sparse(std::string_view, T&, const T&) const {}
  };
};

template <class Derived>
std::shared_ptr<Operation> make_kind() {
  return std::make_shared<Derived>();
}

/// The edit a builder makes of an operation: its vectors copied, checked. @param where  the builder.
template <class Derived>
Edit edit_of(Derived operation, const HookPoint& point, double strength, const EditOptions& options,
             std::string_view where) {
  operation.own(where);
  Edit edit{.point = point,
            .op = std::make_shared<const Derived>(std::move(operation)),
            .strength = strength,
            .unit = options.unit,
            .scope = options.scope,
            .when = options.when,
            .name = options.name};
  edit.validate(where);
  return edit;
}
/// The same for edits that are told their place: what only edits of SAEs look at must not be set.
template <class Derived>
Edit edit_at(Derived operation, const HookPoint& at, double strength, const EditOptions& options,
             std::string_view where) {
  require(
      !options.point && options.max_activation == 0, ErrorCode::argument, where,
      "expected EditOptions without point and max_activation, which only edits of SAE features look at; the place is "
      "an argument");
  return edit_of(std::move(operation), at, strength, options, where);
}

/// @throws Error(argument) for the zero vector.
void require_direction(const at::Tensor& vector, std::string_view where);
void require_one_width(const at::Tensor& a, const at::Tensor& b, std::string_view where);
/// @throws Error(shape | argument) unless they are two directions of one width that are not parallel.
void require_plane(const at::Tensor& a, const at::Tensor& b, std::string_view where);
/// v / |v|, f64.
at::Tensor unit_vector(const at::Tensor& v);
/// A Gaussian vector of that width and length, f32.
at::Tensor gaussian(std::int64_t width, double norm, Rng& rng);
/// One as wide and as long as `like`.
at::Tensor gaussian_like(const at::Tensor& like, Rng& rng);
/// The edit with another operation and name.
template <class Derived>
Edit with_operation(const Edit& edit, Derived operation, std::string name) {
  Edit result = edit;
  result.op = std::make_shared<const Derived>(std::move(operation));
  result.name = std::move(name);
  return result;
}
/// Gaussian noise of a length in place of an edit that adds something of that length. In StrengthUnit::residual_norm
/// the length is the share of |h|.
Edit noise_of_size(const Edit& edit, std::int64_t width, double length, Rng& rng);

}  // namespace steer::steering::detail
