// ema PAIRS CHUNKS MOMENTUM STEP AT: from standard input the rows of the table, with offsets in place of addresses, the
// chunks, and the elements that the offsets count bytes of; these elements, updated, to standard output. AT says where
// momentum and step come from: 0 the numbers, 4 a float and 8 a double on the device, as the step then is.
#include "cuda/ema.cu"

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

int main(int, char** argument) {
    std::vector<sslfast::EmaPair> pairs(std::atoi(argument[1]));
    std::vector<uint64_t> chunks(std::atoi(argument[2]));
    const double momentum = std::atof(argument[3]);
    const float momentum_float = float(momentum);
    const uint64_t step = std::strtoull(argument[4], nullptr, 10);
    const int at = std::atoi(argument[5]);

    const std::string input(std::istreambuf_iterator<char>(std::cin), {});
    const size_t table = pairs.size() * sizeof(pairs[0]), map = chunks.size() * sizeof(chunks[0]);
    std::memcpy(pairs.data(), input.data(), table);
    std::memcpy(chunks.data(), input.data() + table, map);
    std::vector<uint4> elements((input.size() - table - map) / sizeof(uint4));
    char* first = reinterpret_cast<char*>(elements.data());
    std::memcpy(first, input.data() + table + map, elements.size() * sizeof(uint4));
    for (sslfast::EmaPair& pair : pairs) {
        pair.target = first + reinterpret_cast<intptr_t>(pair.target);
        pair.source = first + reinterpret_cast<intptr_t>(pair.source);
    }
    const void* momentum_at = at == 8 ? static_cast<const void*>(&momentum) : at == 4 ? &momentum_float : nullptr;
    sslfast::cuda::ema_update(pairs.data(), chunks.data(), chunks.size(), at ? -1 : momentum, momentum_at, at == 8,
                              at ? 0 : step, at ? &step : nullptr, nullptr);
    std::cout.write(first, elements.size() * sizeof(uint4));
}
