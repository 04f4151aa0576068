// The interventions of a session: compiled once by value, one memory a sequence, run as hooks before all others.
#include <algorithm>

#include "core/format_text.hpp"
#include "model/session_impl.hpp"

namespace steer {

using model::detail::Replay;
using model::detail::SequenceCache;

std::shared_ptr<CompiledIntervention> Session::Impl::program_of(const InterventionPtr& intervention) {
  if (!intervention) return nullptr;
  const std::string name = intervention->name();
  {
    const std::lock_guard lock(compiling);
    if (auto program = known_program(name, *intervention)) return program;
  }
  auto program = intervention->compile(model, {.batch_invariant = options.batch_invariant});
  if (options.on_warning == OnWarning::error && !program->warnings().empty())
    fail(ErrorCode::config, "Session::open",
         "expected a steering without a warning but {}; SessionOptions::on_warning decides",
         program->warnings().front());
  for (const HookPoint& point : program->points())
    require(hooks->exists(point), ErrorCode::argument, "Session::open",
            "expected an intervention at points this model computes but got {}", point.name());
  const std::lock_guard lock(compiling);
  if (auto other = known_program(name, *intervention)) return other;  // another thread was first
  constexpr std::size_t kept = 256;                                   // a server sees ever new steerings
  if (compiled.size() >= kept)
    std::erase_if(compiled, [](const auto& entry) { return entry.second.program.use_count() == 1; });
  return compiled.emplace(name, Compiled{intervention, std::move(program)})->second.program;
}

std::shared_ptr<CompiledIntervention> Session::Impl::known_program(const std::string& name,
                                                                   const Intervention& intervention) {
  for (auto [it, end] = compiled.equal_range(name); it != end; ++it)
    if (it->second.source->equals(intervention)) return it->second.program;
  return nullptr;
}

void Session::Impl::warn(std::string warning) {
  if (std::find(warnings.begin(), warnings.end(), warning) == warnings.end()) warnings.push_back(std::move(warning));
}

void Session::Impl::begin(SequenceCache& state, const InterventionPtr& intervention) {
  state.program = program_of(intervention);
  if (state.program)
    for (const std::string& warning : state.program->warnings()) warn(warning);
  state.memory = state.program ? state.program->start() : nullptr;
  if (state.memory) state.memory->see(0, state.ids);
}

void Session::Impl::count_user(CompiledIntervention* program, int by) {
  if (!program) return;
  std::int64_t& count = users[program];
  const bool was_used = count > 0;
  count += by;
  if ((count > 0) == was_used) return;
  if (count == 0) users.erase(program);
  std::map<HookPoint, bool> needed;  // whether some program edits there
  for (const auto& [used, number] : users)
    for (const HookPoint& point : used->points()) needed[point] |= used->edits(point);
  std::erase_if(wired, [&](const auto& entry) {
    const auto& [point, hook] = entry;
    const auto found = needed.find(point);
    if (found != needed.end() && found->second == hook.first) return false;
    hooks->remove(*hook.second);
    return true;
  });
  // Before all hooks of order 0: what they see is what the interventions leave.
  for (const auto& [point, edits] : needed)
    if (!wired.contains(point))
      wired[point] = {
          edits, hooks->add(point, [this](HookContext& at) { intervene(at); }, {.read_only = !edits, .order = -1})};
}

void Session::Impl::group(std::span<const TokenRun> runs, std::span<SequenceCache* const> states) {
  groups.clear();
  for (std::size_t i = 0; i < runs.size(); ++i) {
    CompiledIntervention* const program = states[i]->program.get();
    if (!program) continue;
    auto found = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.program == program; });
    if (found == groups.end()) found = groups.insert(found, Group{program, {}});
    found->runs.push_back({&runs[i], states[i]->memory.get()});
  }
}

/// Whether the pass of `groups` may be recorded. Says once what keeps decoded steps from it.
Replay Session::Impl::replay(const BatchView& batch) {
  if (!options.graphs || !forward.records() || std::ssize(batch.runs) != batch.size()) return {};
  constexpr auto kSlow = "steps are launched kernel by kernel on the card instead of as one recording";
  if (hooks->size() > wired.size())
    return warn(format_text("{} while the session has hooks of your own", kSlow)), Replay{};
  together.clear();
  for (const Group& group : groups) {
    const auto* const recordable = dynamic_cast<const model::detail::Recordable*>(group.program);
    if (!recordable || !recordable->settled())
      return warn(format_text("{} while a sequence has a steering that calls a function, watches, or reads a feature "
                              "that needs a full encode",
                              kSlow)),
             Replay{};
    if (!recorded_edits) recorded_edits = recordable->pass_edits(model.device());
    if (!recorded_edits) return {};
    together.push_back({group.program, group.runs});
  }
  return {true, groups.empty() ? nullptr : recorded_edits.get(), together};
}

void Session::Impl::intervene(HookContext& at) {
  together.clear();
  for (const Group& group : groups) {
    const auto& points = group.program->points();
    if (std::find(points.begin(), points.end(), at.point) != points.end())
      together.push_back({group.program, group.runs});
  }
  if (at.point.site != Site::attn_pattern) {
    if (!together.empty()) together.front().program->run_all(at, together);
    return;
  }
  // One call a run, over a view of its own.
  for (const IntervenedGroup& group : together)
    for (const IntervenedRun& own : group.runs)
      if (const TokenRun& here = at.batch.runs[0]; own.run->sequence == here.sequence &&
                                                   here.position >= own.run->position &&
                                                   here.position < own.run->position + own.run->end - own.run->begin) {
        const IntervenedRun alone{&here, own.memory};
        group.program->run(at, {&alone, 1});
      }
}

SequenceId Session::Impl::open(const InterventionPtr& intervention) {
  auto program = program_of(intervention);  // may throw: before there is a sequence
  const SequenceId sequence = cache.open();
  begin(cache.at(sequence, "Session::open"), intervention);
  count_user(program.get(), 1);
  return sequence;
}

void Session::Impl::close(SequenceId sequence) {
  const auto program = cache.at(sequence, "Session::close").program;
  cache.close(sequence);
  count_user(program.get(), -1);
}

}  // namespace steer
