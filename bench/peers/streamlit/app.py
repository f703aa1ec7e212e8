"""The seed's dashboard: Streamlit, which reads the newest rows every five seconds and shows them with two charts."""

import os
import time

import pandas
import psycopg
import streamlit

streamlit.set_page_config(page_title="Anomalies", layout="wide")
streamlit.title("Real-time anomaly detection")
connection = psycopg.connect(os.environ["DATABASE"])
frame = pandas.DataFrame(
    connection.execute(
        "select device_id, metric_name, metric_value, event_time, mean, std_dev, z_score, severity"
        " from anomalies order by event_time desc limit 500"
    ).fetchall(),
    columns=["device_id", "metric_name", "metric_value", "event_time", "mean", "std_dev", "z_score", "severity"],
)
connection.close()
streamlit.metric("Anomalies", len(frame))
streamlit.table(frame.head(20)[["device_id", "metric_name", "metric_value", "event_time", "z_score"]])
streamlit.line_chart(frame, x="event_time", y="metric_value")
streamlit.bar_chart(frame["device_id"].value_counts())
time.sleep(5)
streamlit.rerun()
