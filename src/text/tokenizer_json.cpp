#include "text/tokenizer_json.hpp"

#include <steer/core/error.hpp>

#include "io/strict_json.hpp"

namespace steer::text::detail {
namespace {

using nlohmann::json;
constexpr std::size_t deepest = 64;

// Receives the parser's events; vocab and merges go to their tables, everything else into a JSON value.
class Receiver : public nlohmann::json_sax<json> {
 public:
  Receiver(TokenizerJson& out, std::string_view text, const std::string& name) : out_(out), text_(text), name_(name) {}

  bool null() override { return value(nullptr); }
  bool boolean(bool v) override { return value(v); }
  bool number_integer(number_integer_t v) override { return value(v); }
  bool number_unsigned(number_unsigned_t v) override {
    if (table_ != Table::vocabulary) return value(v);
    require(v < (1u << 30), ErrorCode::format, kTokenizerLoad, "expected ids below 2^30 but {} has {} ({})",
            io::detail::quote(key_), v, name_);
    out_.vocabulary.emplace_back(std::move(key_), static_cast<std::int32_t>(v));
    return true;
  }
  bool number_float(number_float_t v, const string_t&) override { return value(v); }
  bool binary(binary_t&) override { return wrong("binary data"); }
  bool string(string_t& v) override {
    if (table_ != Table::merges) return value(std::move(v));
    if (in_pair_) {
      require(parts_ < 2, ErrorCode::format, kTokenizerLoad, "expected merges of two pieces but got more ({})", name_);
      (parts_++ == 0 ? left_ : right_) = std::move(v);
      return true;
    }
    if (v.starts_with("#version")) return true;
    const std::size_t space = v.find(' ');
    require(space != string_t::npos && v.find(' ', space + 1) == string_t::npos, ErrorCode::format, kTokenizerLoad,
            "expected merges of two pieces with a space between but got {} ({})", io::detail::quote(v), name_);
    add_merge(std::string_view(v).substr(0, space), std::string_view(v).substr(space + 1));
    return true;
  }
  bool start_object(std::size_t) override {
    if (table_ != Table::none) return wrong("an object");
    if (in_model() && key_ == "vocab") {
      table_ = Table::vocabulary;
      return true;
    }
    return open(json::object());
  }
  bool key(string_t& v) override {
    key_ = std::move(v);
    return true;
  }
  bool end_object() override {
    if (table_ == Table::vocabulary)
      table_ = Table::none;
    else
      open_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override {
    if (table_ == Table::merges && !in_pair_) {
      in_pair_ = true;
      parts_ = 0;
      return true;
    }
    if (table_ != Table::none) return wrong("an array");
    if (in_model() && key_ == "merges") {
      table_ = Table::merges;
      out_.has_merges = true;
      return true;
    }
    return open(json::array());
  }
  bool end_array() override {
    if (in_pair_) {
      require(parts_ == 2, ErrorCode::format, kTokenizerLoad, "expected merges of two pieces but got {} ({})", parts_,
              name_);
      add_merge(left_, right_);
      in_pair_ = false;
    } else if (table_ == Table::merges) {
      table_ = Table::none;
    } else {
      open_.pop_back();
    }
    return true;
  }
  bool parse_error(std::size_t at, const std::string&, const json::exception& error) override {
    io::detail::refuse_json(text_, at, error, kTokenizerLoad, name_);
  }

 private:
  enum class Table { none, vocabulary, merges };

  // The innermost open container is the object under the root's key "model".
  bool in_model() const { return open_.size() == 2 && open_[1].second == "model" && open_[1].first->is_object(); }
  json* place(json v) {
    if (open_.empty()) return &(out_.rest = std::move(v));
    json& parent = *open_.back().first;
    if (parent.is_array()) return &parent.emplace_back(std::move(v));
    return &(parent[key_] = std::move(v));
  }
  bool value(json v) {
    if (table_ != Table::none) return wrong(v.type_name());
    place(std::move(v));
    return true;
  }
  bool open(json v) {
    require(open_.size() < deepest, ErrorCode::format, kTokenizerLoad,
            "expected at most {} levels of nesting but got more ({})", deepest, name_);
    std::string key = key_;
    json* placed = place(std::move(v));
    open_.emplace_back(placed, std::move(key));
    return true;
  }
  bool wrong(std::string_view what) const {
    fail(ErrorCode::format, kTokenizerLoad, "expected {} but got {} ({})",
         table_ == Table::vocabulary ? "model.vocab to map pieces to ids" : "model.merges to list pairs of pieces",
         what, name_);
  }
  void add_merge(std::string_view left, std::string_view right) {
    out_.merges.push_back(
        {out_.merge_text.size(), static_cast<std::uint32_t>(left.size()), static_cast<std::uint32_t>(right.size())});
    out_.merge_text += left;
    out_.merge_text += right;
  }

  TokenizerJson& out_;
  std::string_view text_;
  const std::string& name_;
  // A pointer into the tree stays good: its container grows only after it was closed.
  std::vector<std::pair<json*, std::string>> open_;
  std::string key_, left_, right_;
  Table table_ = Table::none;
  bool in_pair_ = false;
  int parts_ = 0;
};

}  // namespace

TokenizerJson parse_tokenizer_json(std::string_view bytes, const std::string& name) {
  TokenizerJson out;
  Receiver receiver(out, bytes, name);
  json::sax_parse(bytes.begin(), bytes.end(), &receiver);
  require(out.rest.is_object(), ErrorCode::format, kTokenizerLoad, "expected a JSON object but got {} ({})",
          out.rest.type_name(), name);
  return out;
}

}  // namespace steer::text::detail
