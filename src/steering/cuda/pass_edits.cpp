// The edits of recorded passes: one launch at each hook point that some token's steering acts at, over all rows. Which
// program a row has, and what of it acts, is read from what is staged, so steerings come and go without a new
// recording.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>
#include <map>

#include "model/cuda/runtime.hpp"
#include "steering/cuda/card_work.hpp"

namespace steer::steering::detail {
namespace {

class CardPassEdits final : public model::detail::PassEdits {
 public:
  explicit CardPassEdits(at::Device device) : device_(device) {}

  bool begin(const BatchView& batch, std::span<const IntervenedGroup> groups) override {
    points_.clear();
    work_ = {};
    for (const IntervenedGroup& group : groups) {
      const Program& program = dynamic_cast<CompiledSteering&>(*group.program).program();
      for (std::size_t i = 0; i < program.places.size(); ++i)
        if (has_work(program.points[i])) points_.try_emplace(program.places[i]);
      if (!program.nodes.empty() && !take_conditions(program, group.runs)) return false;
    }
    for (auto& [at, point] : points_) {
      point.first = work_.work.size();
      for (const IntervenedGroup& group : groups) {
        auto& steering = dynamic_cast<CompiledSteering&>(*group.program);
        const PointProgram* const own = steering.program().at(at);
        if (own && has_work(*own) && steering.take_up(group.runs)) work_.add(steering.job(*own, device_), batch);
      }
      point.count = work_.work.size() - point.first;
    }
    shape_ = {room(std::ssize(work_.selected)), room(work_.changes), room(work_.registers),
              room(std::ssize(work_.states))};
    for (const auto& [at, point] : points_) {
      shape_.push_back(at.layer);
      shape_.push_back(static_cast<std::int64_t>(at.site));
    }
    return true;
  }

  const std::vector<std::int64_t>& shape() const override { return shape_; }

  void stage(std::int64_t places, Tables& tables) override {
    places_ = places;
    tables_ = &tables;
    for (auto& [at, point] : points_) {
      const auto begin = work_.work.begin() + static_cast<std::ptrdiff_t>(point.first);
      std::vector<card::Work> rows(begin, begin + static_cast<std::ptrdiff_t>(point.count));
      rows.resize(static_cast<std::size_t>(places));  // with work that is none
      point.at_work = tables.add(std::span<const card::Work>(rows));
    }
    work_.selected.resize(static_cast<std::size_t>(shape_[0]));
    at_selected_ = tables.add(std::span<const std::uint8_t>(work_.selected));
    work_.states.resize(static_cast<std::size_t>(shape_[3]));
    at_states_ = tables.add(std::span<const std::uint8_t>(work_.states));
    // A recording writes where it was recorded: memory of a size is made once and stays.
    const auto make = [&](std::map<std::int64_t, at::Tensor>& kept, std::int64_t size) {
      at::Tensor& memory = kept[size];
      if (!memory.defined()) memory = at::empty({size}, at::TensorOptions().device(device_).dtype(at::kFloat));
      return memory;
    };
    changes_ = make(changes_of_, shape_[1]);
    registers_ = make(registers_of_, shape_[2]);
  }

  void launch(const HookPoint& at, const at::Tensor& value) override {
    const auto found = points_.find(at);
    if (found == points_.end()) return;  // of other sequences' steerings
    card::edit(model::detail::cuda::current_stream(), {.work = tables_->at<card::Work>(found->second.at_work),
                                                       .tokens = places_,
                                                       .h = value.data_ptr<float>(),
                                                       .stride = value.stride(0),
                                                       .selected = tables_->at<std::uint8_t>(at_selected_),
                                                       .states = states().data_ptr<std::uint8_t>(),
                                                       .changes = changes_.data_ptr<float>(),
                                                       .registers = registers_.data_ptr<float>()});
  }

  void note() override {
    work_.count(changes_.clone());
    if (work_.undecided.empty()) return;
    const auto decided = model::detail::cuda::fetch(states());
    for (const auto& [memory, own] : work_.undecided)
      memory->decided_later(own.position, [decided, first = own.first] { return decided() + first; });
  }

 private:
  struct Point {
    std::size_t first = 0, count = 0;  ///< of the work
    std::size_t at_work = 0;           ///< of the tables
  };

  static bool has_work(const PointProgram& point) { return !point.instructions.empty() || !point.nodes.empty(); }

  /// Takes up the conditions of these sequences as they are before the pass; those of the entropy alone are decided
  /// now.
  /// @return false: a sequence comes twice, and its second token needs what the first one decides.
  bool take_conditions(const Program& program, std::span<const IntervenedRun> runs) {
    for (const IntervenedRun& own : runs) {
      auto* const memory = static_cast<SteeringMemory*>(own.memory);
      const std::int64_t position = own.run->position;
      if (!work_.undecided.try_emplace(memory, position, std::ssize(work_.states)).second) return false;
      memory->recall();
      for (std::size_t i = 0; i < program.nodes.size(); ++i) {
        const int node = static_cast<int>(i);
        const bool observed = std::ranges::find(program.entropy_nodes, node) != program.entropy_nodes.end();
        if (program.nodes[i].entropy_only && !observed) memory->decide(node, position, memory->entropy_at(position));
        work_.states.push_back(static_cast<std::uint8_t>((memory->holds(node, position) ? kHolds : 0) |
                                                         (memory->holds(node, position - 1) ? kHeld : 0)));
      }
    }
    return true;
  }

  at::Tensor states() const { return tables_->bytes(at_states_, shape_[3]); }

  /// For so many and somewhat more.
  static std::int64_t room(std::int64_t wanted) {
    return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(wanted, 64))));
  }

  at::Device device_;
  std::map<HookPoint, Point> points_;
  CardWork work_;
  std::vector<std::int64_t> shape_;  ///< room for what is selected, changes, registers and states; then the points
  const Tables* tables_ = nullptr;
  std::int64_t places_ = 0;
  std::size_t at_selected_ = 0, at_states_ = 0;
  at::Tensor changes_, registers_;
  std::map<std::int64_t, at::Tensor> changes_of_, registers_of_;
};

}  // namespace

std::unique_ptr<model::detail::PassEdits> card_pass_edits(at::Device device) {
  return std::make_unique<CardPassEdits>(device);
}

}  // namespace steer::steering::detail
