#include "eval/run/prompts.hpp"

#include <steer/text/chat_template.hpp>

namespace steer::eval::detail {

std::vector<std::int64_t> chat_ids(const Model& model, std::string_view system, std::string_view user) {
  std::vector<Message> messages;
  if (!system.empty()) messages.push_back({Role::system, std::string(system)});
  messages.push_back({Role::user, std::string(user)});
  return model.chat().render(messages).ids;
}

std::string system_of(const Arm& arm, const Behaviour& behaviour) {
  switch (arm.asking) {
    case Asking::nothing:
      return "";
    case Asking::plainly:
      return system_prompt(behaviour);
    case Asking::strongly:
      return strong_system_prompt(behaviour);
  }
  return "";
}

}  // namespace steer::eval::detail
