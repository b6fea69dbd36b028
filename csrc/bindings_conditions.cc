// The Python face of csrc/nethack/conditions*: conditions, and the features of glyphs that they rest on.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>

#include "nethack/abi.h"
#include "nethack/conditions.h"
#include "nethack/tables.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

using pbm::nethack::StairsMemory;

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

// Rows of one array argument of evaluate_conditions, checked against the number of items that a row must have.
template <typename T>
const T* rows(const Array<T>& array, py::ssize_t count, py::ssize_t items, const char* name) {
  if (array.ndim() < 1 || array.shape(0) != count || array.size() != count * items) {
    throw py::value_error(std::string(name) + " must hold " + std::to_string(items) + " items a row, " +
                          std::to_string(count) + " rows");
  }
  return array.data();
}

py::array_t<std::uint64_t> evaluate_conditions(const Array<std::int16_t>& glyphs, const Array<std::int64_t>& blstats,
                                               const Array<std::uint8_t>& message,
                                               const Array<std::int16_t>& inv_glyphs,
                                               const Array<std::uint8_t>& inv_oclasses,
                                               const Array<std::uint8_t>& inv_letters, const Array<std::int32_t>& misc,
                                               const std::vector<StairsMemory*>& memories) {
  using namespace pbm::nethack;
  const py::ssize_t n = glyphs.ndim() > 0 ? glyphs.shape(0) : 0;
  const ObservationView first{rows(glyphs, n, kMapSize, "glyphs"),
                              rows(blstats, n, kBlstatsSize, "blstats"),
                              rows(message, n, kMessageSize, "message"),
                              rows(inv_glyphs, n, kInventorySize, "inv_glyphs"),
                              rows(inv_oclasses, n, kInventorySize, "inv_oclasses"),
                              rows(inv_letters, n, kInventorySize, "inv_letters"),
                              rows(misc, n, kMiscSize, "misc")};
  if (!memories.empty() && memories.size() != static_cast<std::size_t>(n)) {
    throw py::value_error("memories must be none, or one for each of " + std::to_string(n) + " rows");
  }
  py::array_t<std::uint64_t> bits({n, static_cast<py::ssize_t>(condition_words())});
  std::uint64_t* out = bits.mutable_data();
  for (py::ssize_t i = 0; i < n; ++i) {
    const ObservationView row{first.glyphs + i * kMapSize,
                              first.blstats + i * kBlstatsSize,
                              first.message + i * kMessageSize,
                              first.inv_glyphs + i * kInventorySize,
                              first.inv_oclasses + i * kInventorySize,
                              first.inv_letters + i * kInventorySize,
                              first.misc + i * kMiscSize};
    StairsMemory* const memory = memories.empty() ? nullptr : memories[static_cast<std::size_t>(i)];
    pbm::nethack::evaluate_conditions(row, out + i * static_cast<py::ssize_t>(condition_words()), memory);
  }
  return bits;
}

py::array_t<std::uint64_t> glyph_features() {
  py::array_t<std::uint64_t> features(pbm::nethack::tables::kGlyphCount);
  std::uint64_t* out = features.mutable_data();
  for (const auto& run : pbm::nethack::tables::kGlyphFeatureRuns) out = std::fill_n(out, run.count, run.value);
  return features;
}

template <typename Text>
std::vector<std::string> condition_texts(Text text) {
  std::vector<std::string> texts;
  for (const auto& condition : pbm::nethack::conditions()) texts.emplace_back(text(condition));
  return texts;
}

}  // namespace

void bind_conditions(py::module_& m) {
  py::class_<StairsMemory>(m, "StairsMemory")
      .def(py::init<>())
      .def("forget", &StairsMemory::forget)
      .def("copy", [](const StairsMemory& memory) { return memory; });
  m.def("glyph_features", &glyph_features);
  m.def("glyph_feature_names", [] {
    const auto& names = pbm::nethack::tables::kFeatureNames;
    return std::vector<std::string>(std::begin(names), std::end(names));
  });
  m.def("condition_names", [] { return condition_texts([](const auto& c) { return c.name; }); });
  m.def("condition_descriptions", [] { return condition_texts([](const auto& c) { return c.description; }); });
  m.def("condition_words", [] { return pbm::nethack::condition_words(); });
  m.def("evaluate_conditions", &evaluate_conditions, "glyphs"_a, "blstats"_a, "message"_a, "inv_glyphs"_a,
        "inv_oclasses"_a, "inv_letters"_a, "misc"_a, "memories"_a = std::vector<StairsMemory*>());
}
