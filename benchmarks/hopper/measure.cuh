// One configuration, launched, checked and timed.
#pragma once
#include <algorithm>
#include <cmath>
#include <string>

#include "data.cuh"

namespace pyfastcal::hopper {

// The driver's function, by way of the runtime: nothing is linked to the driver.
inline auto find_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  PYFASTCAL_CHECK(
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found));
  if (!function) give_up("cuTensorMapEncodeTiled", "the driver has none");
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
}

// Boxes of a chunk's columns of `box` rows.
inline CUtensorMap make_map(decltype(&cuTensorMapEncodeTiled) encode, void* data, int rows, int box) {
  const cuuint64_t sizes[2] = {kDepth, cuuint64_t(rows)}, strides[1] = {kDepth * 2};
  const cuuint32_t boxes[2] = {kChunk, cuuint32_t(box)}, steps[2] = {1, 1};
  CUtensorMap map;
  const CUresult result = encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, data, sizes, strides, boxes, steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) give_up("cuTensorMapEncodeTiled", std::to_string(int(result)).c_str());
  return map;
}

class Launch {
 public:
  Launch(const Configuration& configuration, const void* kernel, const Data& data, int multiprocessors, int* report)
      : kernel_(kernel),
        rows_(make_map(find_encoder(), data.rows, kRows, kTileRows)),
        classes_(make_map(find_encoder(), data.vectors, kClasses, configuration.width / configuration.cluster)),
        args_{
            data.classes,    data.gain,       data.weight, kFirst, kSecond, kRows, (kRows + kTileRows - 1) / kTileRows,
            data.confidence, data.prediction, report} {
    const int shared = configuration.shared_bytes(), cluster = configuration.cluster;
    PYFASTCAL_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
    config_.gridDim = multiprocessors;
    config_.blockDim = kThreads;
    config_.dynamicSmemBytes = shared;
    if (cluster == 1) return;
    attribute_.id = cudaLaunchAttributeClusterDimension;
    attribute_.val.clusterDim = {unsigned(cluster), 1, 1};
    config_.attrs = &attribute_;
    config_.numAttrs = 1;
    config_.gridDim = multiprocessors / cluster * cluster;
    int clusters = 0;  // not every multiprocessor may have a partner
    PYFASTCAL_CHECK(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config_));
    if (clusters < 1) give_up("launch", "no cluster fits");
    config_.gridDim = std::min(clusters, multiprocessors / cluster) * cluster;
  }
  Launch(const Launch&) = delete;  // config_ points to attribute_

  void operator()() {
    void* args[] = {&rows_, &classes_, &args_};
    PYFASTCAL_CHECK(cudaLaunchKernelExC(&config_, kernel_, args));
  }
  int blocks() const { return int(config_.gridDim.x); }

 private:
  const void* kernel_;
  CUtensorMap rows_, classes_;
  Arguments args_;
  cudaLaunchConfig_t config_{};
  cudaLaunchAttribute attribute_{};
};

// Milliseconds a launch, of `count` one after the other.
inline float time_launches(Launch& launch, int count) {
  cudaEvent_t begin, end;
  PYFASTCAL_CHECK(cudaEventCreate(&begin));
  PYFASTCAL_CHECK(cudaEventCreate(&end));
  PYFASTCAL_CHECK(cudaEventRecord(begin));
  for (int i = 0; i < count; ++i) launch();
  PYFASTCAL_CHECK(cudaEventRecord(end));
  PYFASTCAL_CHECK(cudaEventSynchronize(end));
  float all;
  PYFASTCAL_CHECK(cudaEventElapsedTime(&all, begin, end));
  PYFASTCAL_CHECK(cudaEventDestroy(begin));
  PYFASTCAL_CHECK(cudaEventDestroy(end));
  return all / float(count);
}

// Prints the rest of the configuration's line. Whether the results were right.
inline bool measure(const Configuration& configuration, const void* kernel, const Data& data, int multiprocessors,
                    int* report) {
  memset(report, 0, 64);
  Launch launch(configuration, kernel, data, multiprocessors, report);
  PYFASTCAL_CHECK(cudaMemset(data.confidence, 0xff, kRows * sizeof(float)));  // NaN
  PYFASTCAL_CHECK(cudaMemset(data.prediction, 0xff, kRows * sizeof(int)));
  launch();
  if (const cudaError_t error = cudaDeviceSynchronize()) {
    printf(
        "FAILED: %s; waited for %d (1 rows' room, 2 a slot, 3 rows, 4 a slot's chunk, 5 a turn; 0 none too long), "
        "block %d, thread %d, parity %d\n",
        cudaGetErrorString(error), report[0], report[1], report[2], report[3]);
    fflush(stdout);
    _exit(3);
  }
  const std::vector<float> confidence = download(data.confidence, kRows);
  const std::vector<int> prediction = download(data.prediction, kRows);
  const bool product_only = configuration.epilogue == Epilogue::maximum;
  const auto& expected = configuration.epilogue == Epilogue::one_weight ? data.one_weight : data.two_weights;
  const auto missing = std::count_if(confidence.begin(), confidence.end(), [](float x) { return std::isnan(x); });
  double error = 0;
  int wrong = 0;
  for (int i = 0; i < 2 * kChecked; ++i) {
    const int row = Data::checked_row(i);
    const double difference =
        std::fabs(double(confidence[row]) - (product_only ? expected[i].top_product : expected[i].confidence));
    error = std::max(error, std::isnan(difference) ? 1e9 : difference);
    wrong += !product_only && prediction[row] != expected[i].prediction && expected[i].lead > 1e-4f;
  }
  const bool good = error < 2e-3 && !wrong && !missing;

  for (int i = 0; i < 2; ++i) launch();
  std::vector<float> times;
  for (int i = 0; i < 15; ++i) times.push_back(time_launches(launch, 1));
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2], cycles = report[4] * 16.0;
  const double sustained = time_launches(launch, 60), gflop = 2e-9 * kRows * kClasses * kDepth;
  const int row_tiles = (kRows + kTileRows - 1) / kTileRows,
            tiles_of_a_block = (row_tiles + launch.blocks() - 1) / launch.blocks();
  printf(
      "%s error %.2e, %d wrong, %d missing; median %.3f ms %.0f TFLOP/s, min %.3f, sustained %.3f ms %.0f TFLOP/s; "
      "%d blocks, %.0f cycles for 128 rows, %.0f MHz\n",
      good ? "OK " : "BAD", error, wrong, int(missing), median, gflop / median, times[0], sustained, gflop / sustained,
      launch.blocks(), cycles / tiles_of_a_block, cycles / (median * 1e3));
  return good;
}

}  // namespace pyfastcal::hopper
