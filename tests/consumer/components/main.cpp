#include <cstdio>
#include <vector>

#include <steer/stats/statistics.hpp>

int main() {
  const std::vector<double> values{1, 2, 6};
  std::printf("mean %.1f\n", steer::summarize(values).mean);
}
