#include "text/jinja/template.hpp"

#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>

#include "text/jinja/syntax.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail::jinja {
namespace {

constexpr std::string_view kChatTemplate = "ChatTemplate";

Value from_json(const nlohmann::ordered_json& json, int level) {
  require(level < 64, ErrorCode::argument, kChatTemplate, "expected JSON of at most 64 levels but got more");
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::boolean:
      return Value(json.get<bool>());
    case nlohmann::ordered_json::value_t::number_integer:
      return Value(json.get<std::int64_t>());
    case nlohmann::ordered_json::value_t::number_unsigned:
      require(json.get<std::uint64_t>() <= INT64_MAX, ErrorCode::argument, kChatTemplate,
              "expected integers of 64 bits but got {}", json.dump());
      return Value(json.get<std::int64_t>());
    case nlohmann::ordered_json::value_t::number_float:
      return Value(json.get<double>());
    case nlohmann::ordered_json::value_t::string:
      return Value::text(json.get_ref<const std::string&>());
    case nlohmann::ordered_json::value_t::array: {
      Sequence out;
      for (const auto& item : json) {
        out.items.push_back(from_json(item, level + 1));
        out.depth = std::max(out.depth, out.items.back().depth() + 1);
      }
      return Value(std::make_shared<const Sequence>(std::move(out)));
    }
    case nlohmann::ordered_json::value_t::object: {
      Dict out;
      for (const auto& [key, value] : json.items()) {
        out.items.emplace_back(Value::text(key), from_json(value, level + 1));
        out.depth = std::max(out.depth, out.items.back().second.depth() + 1);
      }
      return Value(std::make_shared<const Dict>(std::move(out)));
    }
    default:
      return None{};
  }
}

}  // namespace

Value from_json(const nlohmann::ordered_json& json) { return from_json(json, 0); }

Template::Template(std::string_view source) {
  require(source.size() <= (std::size_t{4} << 20), ErrorCode::unsupported, kChatTemplate,
          "expected a chat template of at most 4 MiB but got {} bytes", source.size());
  for (std::size_t at = 0; at < source.size();) {
    const Utf8Step step = utf8_step(source, at);
    require(step.valid, ErrorCode::format, kChatTemplate,
            "expected a chat template in UTF-8 but byte {} of it, 0x{:02x}, begins no character; save it as UTF-8", at,
            static_cast<unsigned char>(source[at]));
    at += step.length;
  }
  try {
    program_ = std::make_shared<const Program>(parse(source));
  } catch (const TemplateUnsupported& error) {
    fail(ErrorCode::unsupported, kChatTemplate, "expected a chat template that steer can run but got one with {}",
         error.what());
  } catch (const TemplateFailure& error) {
    fail(ErrorCode::format, kChatTemplate, "expected a Jinja template but got an error in {}", error.what());
  }
}

Template::~Template() = default;

MarkedText Template::render(const Variables& variables, std::chrono::sys_seconds now, const Limits& limits) const {
  Machine machine(*program_, limits, now);
  try {
    const Machine::Enter enter(machine, nullptr);
    for (const auto& [name, value] : variables)
      if (const int id = program_->name(name); id >= 0) machine.set(id, value);
    const Machine::Enter body(machine);
    MarkedText out;
    run(machine, program_->body, out);
    return out;
  } catch (const TemplateUnsupported& error) {
    fail(ErrorCode::unsupported, kChatTemplate, "expected a chat template that steer can run but line {} of it uses {}",
         machine.line, error.what());
  } catch (const TemplateFailure& error) {
    fail(ErrorCode::argument, kChatTemplate,
         "the chat template refuses this conversation: {} (line {} of the template)", error.what(), machine.line);
  }
}

bool Template::uses(std::string_view name) const { return program_->name(name) >= 0; }

}  // namespace steer::text::detail::jinja
