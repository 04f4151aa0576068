#include "io/strict_json.hpp"

namespace steer::io::detail {

void JsonEvents::parse(std::string_view text) {
  nlohmann::json::sax_parse(text.begin(), text.end(), static_cast<nlohmann::json_sax<nlohmann::json>*>(this));
}

void JsonEvents::refuse(std::string_view got) const {
  std::string place;
  for (const auto& key : keys_) place += (place.empty() ? "" : " / ") + quote(key);
  fail(ErrorCode::format, where_, "expected what the format allows at {} but got {} in {}",
       place.empty() ? "the top level" : place, got, what_);
}

void JsonEvents::enter() {
  if (++level_ > depth_) refuse("deeper nesting");
}

bool JsonEvents::start_object(std::size_t) {
  enter();
  on_object();
  keys_.emplace_back();
  return true;
}

bool JsonEvents::key(string_t& text) {
  keys_.back() = std::move(text);
  return true;
}

bool JsonEvents::end_object() {
  keys_.pop_back();
  --level_;
  on_object_end();
  return true;
}

bool JsonEvents::start_array(std::size_t) {
  enter();
  on_array();
  return true;
}

bool JsonEvents::end_array() {
  --level_;
  return true;
}

bool JsonEvents::parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) {
  fail(ErrorCode::format, where_, "expected JSON but got an error at byte {} of {} ({})", position, what_,
       quote(error.what()));
}

}  // namespace steer::io::detail
