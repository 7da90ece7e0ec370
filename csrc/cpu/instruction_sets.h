// Which of the modules this CPU can run.
#pragma once

#include <string>
#include <vector>

namespace sslfast::cpu {

// The best first; the flags of each stand in CMakeLists.txt.
std::vector<std::string> instruction_sets();

}  // namespace sslfast::cpu
