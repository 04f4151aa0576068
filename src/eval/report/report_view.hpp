#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include <steer/eval/report.hpp>

namespace steer::eval::detail {

/// What the templates show, as text: no markup is made outside them but the plots' SVG.
nlohmann::ordered_json view_of(const Report& report);

/// Its parts. A table is {"columns": [...], "rows": [{"sub", "cells": [{"value", "small": [...], "text", "css",
/// "dot"}]}]}: `text` is the cell in one line, for Markdown. Null where there is nothing to show.
nlohmann::ordered_json arm_table(const Report& report);
nlohmann::ordered_json reason_table(const Report& report);
nlohmann::ordered_json against_table(const Report& report);
nlohmann::ordered_json limits_view(const Report& report);
nlohmann::ordered_json behaviour_table(const Report& report);
nlohmann::ordered_json audit_table(const Report& report);
nlohmann::ordered_json pair_table_view(const Report& report);
/// [{"arm", "table"}]: which other behaviours rose.
nlohmann::ordered_json off_target_view(const Report& report);
nlohmann::ordered_json hash_table(const Report& report);
nlohmann::ordered_json samples_view(const Report& report);
/// Adds "legend", "scatter", "panels" and "strengths".
void add_plots(nlohmann::ordered_json& view, const Report& report);

/// Each arm's colour; arms of one strength family share it.
class Colours {
 public:
  explicit Colours(const Report& report);
  std::string of(const std::string& arm) const { return colours_.at(groups_.at(arm)); }
  const std::string& group(const std::string& arm) const { return groups_.at(arm); }
  const std::vector<std::string>& legend() const { return legend_; }
  std::string of_group(const std::string& group) const { return colours_.at(group); }

 private:
  std::map<std::string, std::string> colours_, groups_;
  std::vector<std::string> legend_;
};

}  // namespace steer::eval::detail
