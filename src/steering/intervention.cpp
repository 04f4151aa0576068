// A steering as sessions take it.
#include <steer/model/model.hpp>
#include <steer/steering/steering.hpp>

#include "steering/runtime.hpp"

namespace steer {
namespace {

class SteeringIntervention final : public Intervention {
 public:
  explicit SteeringIntervention(Steering steering) : steering_(std::move(steering)) {}
  std::string name() const override { return steering_.describe(); }
  bool equals(const Intervention& other) const override {
    const auto* same = dynamic_cast<const SteeringIntervention*>(&other);
    return same && same->steering_ == steering_;
  }
  std::shared_ptr<CompiledIntervention> compile(const Model& model, const CompileOptions& options) const override {
    std::optional<Tokenizer> tokenizer;
    if (model.has_tokenizer()) tokenizer = model.tokenizer();
    return std::make_shared<steering::detail::CompiledSteering>(model.config(), tokenizer, steering_, options);
  }

 private:
  Steering steering_;
};

}  // namespace

Steering::operator InterventionPtr() const {
  return empty() ? nullptr : std::make_shared<const SteeringIntervention>(*this);
}

}  // namespace steer
